#pragma once
#include <exception>
#include <optional>
#include <string>

namespace brume {

/// Returns the size that the error names, like " for 1024 bytes", if `e` is a failed allocation; nothing for other errors.
std::optional<std::string> out_of_memory(const std::exception& e);

}  // namespace brume
