#pragma once
// Pixels of formats that OpenCV reads in part: what it drops without a word is decoded here, or refused.
#include <string>
#include <string_view>

#include "brume/image/image_codec.h"

namespace brume {

/// Decodes a TIFF as it is stored, whatever orientation it tells: grey with transparency too. Throws ConfigError naming what cannot be read
/// (signed numbers and fractions, 16 bits of CMYK or in planes).
Image stored_tiff(std::string_view bytes, Decoding how, const std::string& name);

/// Returns true if the header of a BMP says which bits are transparency (BITMAPV3INFOHEADER and later, 32 bits per pixel). The fourth byte
/// of other pixels of 32 bits means nothing.
bool bmp_has_alpha(std::string_view bmp);
/// Decodes such a BMP. Throws ConfigError if it is cut short.
Image transparent_bmp(std::string_view bmp, const Decoding& how, const std::string& name);

}  // namespace brume
