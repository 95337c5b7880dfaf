#pragma once
// Images that tell how they were made, and making them again: `brume sample --from image.png`.
#include <map>
#include <string>
#include <vector>

namespace brume::tools {

/// Whether an image may tell of this argument: an option that says what is made, never one that says where it is written or what code is
/// loaded. Images come from anywhere.
bool may_be_told(const std::string& option, const std::string& value);

/// The text chunks of an image made by `brume sample` with these arguments, the source and then options with their values: one for people,
/// one for `--from`. Options that may not be told are a mistake of ours.
std::map<std::string, std::string> origin_text(const std::vector<std::string>& arguments);

/// The command line, where it is `sample --from FILE [CHECKPOINT] …` with the arguments that the image was made with in the place of that;
/// those that are given besides take the place of the image's own. Throws ConfigError where the image does not tell, and where it tells
/// of options that it may not.
std::vector<std::string> replayed(std::vector<std::string> arguments);

}  // namespace brume::tools
