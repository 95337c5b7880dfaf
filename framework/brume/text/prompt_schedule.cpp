#include "brume/text/prompt_schedule.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "brume/config/number.h"
#include "brume/text/prompt.h"

namespace brume::text {
namespace {

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\n");
  return first == text.npos ? std::string_view() : text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

/// Returns the place of the bracket that closes the one at `open`; npos if none does.
size_t closing(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '[')
      ++depth;
    else if (text[i] == ']' && --depth == 0)
      return i;
  }
  return text.npos;
}

/// Returns what is between separators that are in no inner bracket.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> all;
  size_t begin = 0;
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '[' || text[i] == '(')
      ++depth;
    else if (text[i] == ']' || text[i] == ')')
      --depth;
    else if (text[i] == separator && depth == 0)
      all.push_back(text.substr(begin, i - begin)), begin = i + 1;
  }
  all.push_back(text.substr(begin));
  return all;
}

struct Moment {
  int64_t step, steps;

  std::string of(std::string_view text) const {
    std::string all;
    for (size_t i = 0; i < text.size(); ++i) {
      const size_t close = text[i] == '[' ? closing(text, i) : text.npos;
      if (text[i] == '\\' && i + 1 < text.size()) {
        all += text[i++];
        all += text[i];
      } else if (close == text.npos) {
        all += text[i];
      } else {
        all += bracket(text.substr(i + 1, close - i - 1));
        i = close;
      }
    }
    return all;
  }

  std::string bracket(std::string_view inside) const {
    const std::vector<std::string_view> pieces = split(inside, ':');
    if (const auto when = pieces.size() > 1 ? last_step(pieces.back()) : std::nullopt) {
      const std::string_view after = pieces[pieces.size() - 2];
      const size_t before = pieces.size() == 2 ? 0 : size_t(after.data() - inside.data()) - 1;
      return of(step <= *when ? inside.substr(0, before) : after);
    }
    const std::vector<std::string_view> choices = split(inside, '|');
    if (choices.size() > 1) return of(choices[size_t(step - 1) % choices.size()]);
    return "[" + of(inside) + "]";
  }

  /// Returns the last step of what is before a change.
  std::optional<int64_t> last_step(std::string_view text) const {
    const std::string_view word = trimmed(text);
    const auto number = parse_number<double>(word);
    if (!number || !std::isfinite(*number)) return {};
    const bool share = word.find('.') != word.npos || *number < 1;
    return int64_t(std::clamp(share ? *number * double(steps) : *number, -1.0, double(steps)));
  }
};

/// Returns a prompt and its weight, if one is written.
std::optional<PromptPiece> weighted(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == text.npos) return {};
  const auto weight = parse_number<double>(trimmed(text.substr(colon + 1)));
  if (!weight || !std::isfinite(*weight)) return {};
  return PromptPiece{std::string(trimmed(text.substr(0, colon))), *weight};
}

}  // namespace

std::string prompt_at(std::string_view prompt, int64_t step, int64_t steps) { return Moment{std::max<int64_t>(1, step), steps}.of(prompt); }

std::vector<PromptPiece> prompts_between_ands(std::string_view prompt) {
  constexpr std::string_view word = "AND";
  std::vector<std::string_view> texts;
  for (size_t at = find_whole_word(prompt, word); at != prompt.npos; at = find_whole_word(prompt, word)) {
    texts.push_back(prompt.substr(0, at));
    prompt.remove_prefix(at + word.size());
  }
  if (texts.empty()) return {weighted(prompt).value_or(PromptPiece{std::string(prompt), 1})};
  texts.push_back(prompt);
  std::vector<PromptPiece> all;
  all.reserve(texts.size());
  for (const std::string_view text : texts) all.push_back(weighted(text).value_or(PromptPiece{std::string(trimmed(text)), 1}));
  return all;
}

}  // namespace brume::text
