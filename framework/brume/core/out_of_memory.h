#pragma once
#include <exception>
#include <optional>
#include <string>

namespace brume {

/// " for 1024 bytes" where an allocation failed, as whoever failed says it; nothing where it is another error.
std::optional<std::string> out_of_memory(const std::exception& e);

}  // namespace brume
