#pragma once
// Files written by torch.save (.pt, .pth, .ckpt) or torch.jit.save: since PyTorch 1.6 a zip archive of one pickle and its storages, before
// that five pickles and the storages one after the other.
#include <memory>
#include <string>
#include <string_view>

#include "brume/weights/pickle_value.h"
#include "brume/weights/tensors.h"

namespace brume {

class MappedFile;

/// Returns true if a file beginning with `bytes` is one of torch.save, of either kind.
bool is_torch_file(std::string_view bytes);
/// Returns true if it is of the kind before PyTorch 1.6, which is no zip archive (also: _use_new_zipfile_serialization=False).
bool is_legacy_torch_file(std::string_view bytes);

/// Returns everything torch.save was given, tensors as views of the mapped file (sharing storages as they did when saved), which they
/// keep alive; storages that are compressed, or lie at places that no number of theirs may have (legacy files do not align them), are
/// copies. Executes nothing: globals beyond those of tensors, and of what is known to stand with them, are refused by name. Throws
/// ConfigError.
PickleValue load_torch_file(const std::string& path);
PickleValue load_torch_file(std::shared_ptr<const MappedFile> file);

/// Returns the tensors of a state dict; keys of nested dicts are joined with '.', entries that are not tensors are left out. It is
/// `value["state_dict"]` if there is one; else, if `value` itself holds no tensors, the averaged weights ("ema") or the weights
/// ("model") that training programs keep there; else `value`. `place`, if given, receives that key, or "".
/// `file` names the source in errors (ConfigError).
NamedTensors state_dict(const PickleValue& value, const std::string& file = "checkpoint", std::string* place = nullptr);

}  // namespace brume
