#pragma once
// Pictures that come and go as texts.
#include <cstdint>
#include <string>
#include <string_view>

namespace brume::tools {

/// Returns base64 with padding (RFC 4648).
std::string base64_of(std::string_view bytes);

/// Returns the bytes of base64, of either alphabet, with or without padding, or of an address "data:image/png;base64,...". Throws HttpError
/// 400 naming the field.
std::string base64_decoded(std::string_view text, const std::string& field);

/// Throws HttpError 400 if the bytes are no picture, and 413 if it has more pixels than `most`, by its header alone.
void check_picture(std::string_view bytes, const std::string& field, int64_t most_pixels);

/// Returns the PNG of a mask as `brume sample` reads it, white = to generate, from one as OpenAI has it: its transparent places are edited.
/// Throws HttpError as check_picture, and 400 if no place is transparent.
std::string mask_of_transparency(std::string_view bytes, int64_t most_pixels);

}  // namespace brume::tools
