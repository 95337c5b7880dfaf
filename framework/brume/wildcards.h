#pragma once
// Dynamic prompts: __NAME__ stands for a line of NAME.txt.
#include <cstdint>
#include <string>
#include <string_view>

namespace brume {

/// Returns the prompt with each __NAME__ replaced by a line of `folder`/NAME.txt, which may name others; blank lines and those that begin
/// with # are left out. The line depends on (seed, image, place in the prompt) alone, in another way in a negative prompt. Throws
/// ConfigError in the name of `option` if a file is missing, is empty, or lies outside the folder, or if files name one another without
/// end.
std::string with_wildcards(std::string_view prompt, const std::string& folder, uint64_t seed, int64_t image, std::string_view option,
                           bool negative = false);

/// Returns the first __NAME__ of a prompt; "" if it has none.
std::string wildcard_in(std::string_view prompt);

}  // namespace brume
