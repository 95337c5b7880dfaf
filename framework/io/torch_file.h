#pragma once
// Files written by torch.save since PyTorch 1.6 (.pt, .pth, .ckpt): a zip archive of one pickle and its storages.
#include <memory>
#include <string>
#include <string_view>

#include "io/tensors.h"
#include "io/value.h"

namespace brume::io {

class MappedFile;

/// Whether a file beginning with `bytes` is one of torch.save, the readable kind or the legacy one (before PyTorch 1.6).
bool is_torch_file(std::string_view bytes);

/// Everything torch.save was given, tensors as views of the mapped file (sharing storages as they did when saved), which they
/// keep alive. Executes nothing: any global beyond those of plain tensors is refused by name. Throws ConfigError.
Value load_torch_file(const std::string& path);
Value load_torch_file(std::shared_ptr<const MappedFile> file);

/// The tensors of a state dict: of `value["state_dict"]` where there is one, else of `value` itself; keys of nested dicts are
/// joined with '.', entries that are not tensors are left out. `file` names the source in errors (ConfigError).
NamedTensors state_dict(const Value& value, const std::string& file = "checkpoint");

}  // namespace brume::io
