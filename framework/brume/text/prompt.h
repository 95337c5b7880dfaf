#pragma once
// Prompts with weights, as the web UIs of Stable Diffusion have them.
#include <string>
#include <string_view>
#include <vector>

namespace brume::text {

/// A piece of a prompt, and how much it counts.
struct PromptPart {
  std::string text;
  double weight = 1;
  bool operator==(const PromptPart&) const = default;
};

/// Reads (text) as 1.1 times, [text] as 1 / 1.1 times and (text:1.3) as 1.3 times the weight that is around them; \( \) \[ \] and \\ stand
/// for the character itself, other backslashes for nothing. A bracket that is not closed counts to the end, one that was not opened is
/// itself. Neighbours of one weight are joined; a prompt without brackets and backslashes is one part, as it is.
std::vector<PromptPart> weighted_parts(std::string_view prompt);

/// Returns the same as ComfyUI reads it: (text:1.3) is 1.3 whatever is around it, [ and ] are themselves, \( and \) stand for the brackets,
/// and one that is not closed is itself.
std::vector<PromptPart> absolute_parts(std::string_view prompt);

/// Returns the same parts between the words BREAK: one list, or one more than there are such words.
std::vector<std::vector<PromptPart>> split_at_breaks(const std::vector<PromptPart>& parts);

/// Returns the place of `word` in a text with no letter, digit or underscore on either side; npos if nowhere.
size_t find_whole_word(std::string_view text, std::string_view word);

/// Returns the place of `word` in a text, from `from` on, with no letter or digit of ASCII that continues it on either side; npos if
/// nowhere.
size_t find_word(std::string_view text, std::string_view word, size_t from = 0);

}  // namespace brume::text
