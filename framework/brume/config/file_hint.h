#pragma once
// "did you mean ...?" for the names of files.
#include <filesystem>
#include <string>

namespace brume {

/// Returns "; did you mean 'runs/model.safetensors'?" if `file` does not exist and its folder has an entry with a similar name, else "".
std::string file_hint(const std::filesystem::path& file);

}  // namespace brume
