#include "brume/text/prompt.h"
#include "brume/config/number.h"

#include <algorithm>
#include <cctype>
#include <optional>

namespace brume::text {
namespace {

constexpr double round_weight = 1.1, square_weight = 1 / 1.1;

/// ":1.3)" at the beginning of a text: the number, and how long that is.
struct Weight {
  double weight;
  size_t length;
};
std::optional<Weight> weight_at(std::string_view text) {
  size_t at = 1;
  const auto blanks = [&] {
    while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at]))) ++at;
  };
  blanks();
  if (at < text.size() && text[at] == '+') ++at;
  std::string_view rest = text.substr(at);
  const auto weight = take_number<double>(rest, std::chars_format::fixed);
  if (!weight) return {};
  at = text.size() - rest.size();
  blanks();
  if (at >= text.size() || text[at] != ')') return {};
  return Weight{*weight, at + 1};
}

class Reader {
 public:
  Reader(std::string_view prompt, bool absolute) : left_(prompt), absolute_(absolute) {}

  std::vector<PromptPart> read() {
    while (!left_.empty()) take();
    for (const size_t from : round_) scale(from, round_weight);
    for (const size_t from : square_) scale(from, square_weight);
    return joined();
  }

 private:
  void take() {
    const char c = left_.front();
    if (c == '\\' && left_.size() > 1 && std::string_view(absolute_ ? "()" : "()[]\\").find(left_[1]) != std::string_view::npos) {
      left_.remove_prefix(1);
      take_plain();
    } else if (c == '(' || (c == '[' && !absolute_)) {
      (c == '(' ? round_ : square_).push_back(parts_.size());
      left_.remove_prefix(1);
      open_ = false;
    } else if (const auto given = c == ':' && !round_.empty() ? weight_at(left_) : std::nullopt) {
      close(round_, given->weight, given->length, true);
    } else if (c == ')' && !round_.empty()) {
      close(round_, round_weight, 1);
    } else if (c == ']' && !square_.empty()) {
      close(square_, square_weight, 1);
    } else {
      take_plain();
    }
  }
  void take_plain() {
    if (!open_) parts_.emplace_back();
    open_ = true;
    parts_.back().text += left_.front();
    left_.remove_prefix(1);
  }
  void close(std::vector<size_t>& opened, double weight, size_t length, bool given = false) {
    scale(opened.back(), weight, given && absolute_);
    opened.pop_back();
    left_.remove_prefix(length);
    open_ = false;
  }
  /// Multiplies the weights from `from` on. `fixes`: the parts weigh as they do, whatever is around them.
  void scale(size_t from, double weight, bool fixes = false) {
    for (size_t i = from; i < parts_.size(); ++i) {
      if (!fixed(i)) parts_[i].weight *= weight;
      if (fixes) fixed_.resize(std::max(fixed_.size(), parts_.size())), fixed_[i] = true;
    }
  }
  bool fixed(size_t part) const { return part < fixed_.size() && fixed_[part]; }
  std::vector<PromptPart> joined() const {
    std::vector<PromptPart> all;
    for (const PromptPart& p : parts_) {
      if (!all.empty() && all.back().weight == p.weight)
        all.back().text += p.text;
      else
        all.push_back(p);
    }
    if (all.empty()) all.emplace_back();
    return all;
  }

  std::string_view left_;
  bool absolute_;
  std::vector<PromptPart> parts_;
  std::vector<bool> fixed_;
  std::vector<size_t> round_, square_;  ///< the first part after each bracket that is open
  bool open_ = false;                   ///< the last part goes on
};

bool of_a_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || static_cast<unsigned char>(c) >= 0x80; }

/// Returns the place of the word on its own.
size_t find_break(std::string_view text) {
  constexpr std::string_view word = "BREAK";
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !of_a_word(text[at - 1])) && (end == text.size() || !of_a_word(text[end]))) return at;
  }
  return std::string_view::npos;
}

}  // namespace

std::vector<PromptPart> weighted_parts(std::string_view prompt) { return Reader(prompt, false).read(); }

std::vector<PromptPart> absolute_parts(std::string_view prompt) { return Reader(prompt, true).read(); }

std::vector<std::vector<PromptPart>> split_at_breaks(const std::vector<PromptPart>& parts) {
  std::vector<std::vector<PromptPart>> all(1);
  for (const PromptPart& p : parts) {
    std::string_view text = p.text;
    for (size_t at = find_break(text); at != std::string_view::npos; at = find_break(text)) {
      if (at > 0) all.back().push_back({std::string(text.substr(0, at)), p.weight});
      all.emplace_back();
      text.remove_prefix(at + 5);
    }
    if (!text.empty()) all.back().push_back({std::string(text), p.weight});
  }
  return all;
}

size_t find_word(std::string_view text, std::string_view word, size_t from) {
  const auto letter = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  if (word.empty()) return std::string_view::npos;
  for (size_t at = text.find(word, from); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool continued = end < text.size() && letter(text[end]) && letter(word.back());
    if (!continued && !(at > 0 && letter(text[at - 1]) && letter(word.front()))) return at;
  }
  return std::string_view::npos;
}

}  // namespace brume::text
