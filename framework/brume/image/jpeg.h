#pragma once
// Whether a JPEG is whole (ITU T.81, annex B): decoders fill what is missing with grey and say nothing.
#include <string>
#include <string_view>

namespace brume {

bool is_jpeg(std::string_view bytes);
/// Throws ConfigError where the file ends before the end of its image (EOI).
void check_jpeg(std::string_view jpeg, const std::string& path);

}  // namespace brume
