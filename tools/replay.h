#pragma once
// Images that tell how they were made, and making them again: `brume sample --from image.png`.
#include <map>
#include <string>
#include <vector>

namespace brume::tools {

/// The text chunks of an image made by `brume sample` with these arguments: one for people, one for `--from`.
std::map<std::string, std::string> origin_text(const std::vector<std::string>& arguments);

/// The command line, where it is `sample --from FILE [CHECKPOINT] …` with the arguments that the image was made with in the place of that;
/// those that are given besides take the place of the image's own. Throws ConfigError where the image does not tell.
std::vector<std::string> replayed(std::vector<std::string> arguments);

}  // namespace brume::tools
