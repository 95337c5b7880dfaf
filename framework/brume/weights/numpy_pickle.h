#pragma once
// Pickles of dicts of NumPy arrays, as EDM2 keeps its statistics: read without executing anything, and written.
#include <string>
#include <vector>

#include "brume/weights/pickle_value.h"
#include "brume/weights/tensors.h"

namespace brume {

/// Returns what was pickled: plain data, with arrays that as_array() reads. Protocols 2 to 5; globals beyond those of arrays and of dicts
/// are refused by name. Throws ConfigError.
PickleValue load_numpy_pickle(const std::string& path);

/// Returns an array of a pickle, of 32 or 64 bits, floating point, as a copy in row-major order. `where` names it in errors
/// (ConfigError): "stats.pkl: fid.mu".
at::Tensor as_array(const PickleValue& value, const std::string& where);

/// A dict of the file: {name: {array's name: array}}.
struct ArrayDict {
  std::string name;
  NamedTensors arrays;  ///< float64
};
/// Writes {"num_images": count, a dict's name: {…}, …, a text's name: text, …} as a pickle of protocol 4, atomically.
void write_numpy_pickle(const std::string& path, int64_t count, const std::vector<ArrayDict>& dicts,
                        const std::vector<std::pair<std::string, std::string>>& texts);

}  // namespace brume
