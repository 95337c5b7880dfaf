#pragma once
// What other programs write into pictures of how they made them, as options of `brume sample`.
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace brume::tools {

struct ForeignOrigin {
  std::string program;                ///< "A1111" or "ComfyUI"
  std::string model;                  ///< by its name there; "" if it is not named
  std::vector<std::string> options;   ///< long names and values in turn
  std::vector<std::string> left_out;  ///< what is not taken over, in words
};

/// Reads the text chunks of a picture: "parameters" (A1111's web UI, Forge, SD.Next) or "prompt" (ComfyUI). Returns nothing if it has
/// neither. `has_image`: an image to start from is given, which pictures do not hold.
std::optional<ForeignOrigin> foreign_origin(const std::map<std::string, std::string>& text, bool has_image);

}  // namespace brume::tools
