#pragma once
// How the readers and writers of this room complain.
#include <cstddef>
#include <string>
#include <string_view>

namespace brume {

/// Throws ConfigError("path: reason").
[[noreturn]] void refuse(const std::string& path, const std::string& reason);

/// Returns `text` on one line of at most `max_length` characters, without control characters: what a file says is not to steer a terminal.
std::string shortened(std::string_view text, size_t max_length = 40);

}  // namespace brume
