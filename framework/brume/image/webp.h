#pragma once
// WebP as a sequence of chunks (RFC 9649): checking that a file is whole, its size, its Exif data and XMP, its first frame.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace brume {

bool is_webp(std::string_view bytes);
/// Throws ConfigError if the file is cut short.
void check_webp(std::string_view webp, const std::string& path);
/// Returns {height, width}, of an animation its canvas; zeros if the file is damaged.
std::pair<int64_t, int64_t> webp_size(std::string_view webp);
/// Returns the Exif data and the XMP packet; empty if the file has none.
std::pair<std::string_view, std::string_view> webp_exif_and_xmp(std::string_view webp);

/// The first frame of an animation. What it does not cover of the canvas is transparent.
struct WebpFrame {
  std::string file;               ///< a WebP of this frame alone
  int64_t height = 0, width = 0;  ///< of the canvas
  int64_t top = 0, left = 0;      ///< of the frame on the canvas
};
/// Returns nothing if the file is no animation. Throws ConfigError if it is one without a frame.
std::optional<WebpFrame> first_frame(std::string_view webp, const std::string& path);

}  // namespace brume
