#pragma once
// Images that record how they were made, and making them again: `brume sample --from image.png`.
#include <map>
#include <string>
#include <vector>

#include "sampling/arguments.h"

namespace brume::tools {

/// Returns the text chunks of an image that `brume sample` makes with these arguments: one for people, one for `--from`.
std::map<std::string, std::string> origin_text(const SampleArguments& a);

/// Returns the command line; if it is `sample --from FILE [CHECKPOINT] …`, with the arguments that the image records, which other options
/// on the line replace. Throws ConfigError if the image records none, or options that it may not.
std::vector<std::string> replayed(std::vector<std::string> arguments);

}  // namespace brume::tools
