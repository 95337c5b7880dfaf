#pragma once
// What torch.save wrote before PyTorch 1.6 (torch/serialization.py, _legacy_save): five pickles, one after the other,
//
//   0x1950a86a20f9469cfc6c   1001   {"little_endian": …}   what was saved   [key, …]
//
// and the storages in the order of those keys, each with its number of elements before it (int64).
#include <memory>

#include "brume/weights/pickle_value.h"

namespace brume {

class MappedFile;

/// Returns everything torch.save was given, as load_torch_file says. Throws ConfigError.
PickleValue load_legacy_torch_file(const std::shared_ptr<const MappedFile>& file);

}  // namespace brume
