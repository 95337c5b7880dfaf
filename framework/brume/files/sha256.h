#pragma once
// SHA-256 (FIPS 180-4): names the content of a file.
#include <string>
#include <string_view>

namespace brume {

/// Returns the hash of the bytes as 64 hexadecimal digits.
std::string sha256(std::string_view bytes);

}  // namespace brume
