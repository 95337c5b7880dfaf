#pragma once
// SHA-256 (FIPS 180-4): names the content of a file.
#include <functional>
#include <string>
#include <string_view>

namespace brume {

/// Returns the hash of the bytes as 64 hexadecimal digits. `read` receives each part of 64 MiB, and the rest, when it is no longer needed.
std::string sha256(std::string_view bytes, const std::function<void(std::string_view part)>& read = {});

}  // namespace brume
