#include "brume/text/prompt.h"
#include "brume/config/number.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>

namespace brume::text {
namespace {

constexpr double round_weight = 1.1, square_weight = 1 / 1.1;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return text;
}

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
  if (!weight || !std::isfinite(*weight)) return {};
  at = text.size() - rest.size();
  blanks();
  if (at >= text.size() || text[at] != ')') return {};
  return Weight{*weight, at + 1};
}

/// Joins neighbours of one weight.
std::vector<PromptPart> joined(const std::vector<PromptPart>& parts) {
  std::vector<PromptPart> all;
  for (const PromptPart& p : parts) {
    if (!all.empty() && all.back().weight == p.weight)
      all.back().text += p.text;
    else
      all.push_back(p);
  }
  if (all.empty()) all.emplace_back();
  return all;
}

class Reader {
 public:
  explicit Reader(std::string_view prompt) : left_(prompt) {}

  std::vector<PromptPart> read() {
    while (!left_.empty()) take();
    for (const size_t from : round_) scale(from, round_weight);
    for (const size_t from : square_) scale(from, square_weight);
    return joined(parts_);
  }

 private:
  void take() {
    const char c = left_.front();
    if (c == '\\') {
      left_.remove_prefix(1);
      if (!left_.empty() && std::string_view("()[]\\").find(left_.front()) != std::string_view::npos) take_plain();
    } else if (c == '(' || c == '[') {
      (c == '(' ? round_ : square_).push_back(parts_.size());
      left_.remove_prefix(1);
      open_ = false;
    } else if (const auto given = c == ':' && !round_.empty() ? weight_at(left_) : std::nullopt) {
      close(round_, given->weight, given->length);
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
  void close(std::vector<size_t>& opened, double weight, size_t length) {
    scale(opened.back(), weight);
    opened.pop_back();
    left_.remove_prefix(length);
    open_ = false;
  }
  void scale(size_t from, double weight) {
    for (size_t i = from; i < parts_.size(); ++i) parts_[i].weight *= weight;
  }
  std::string_view left_;
  std::vector<PromptPart> parts_;
  std::vector<size_t> round_, square_;  ///< the first part after each bracket that is open
  bool open_ = false;                   ///< the last part goes on
};

/// Returns the texts between brackets that are in no other, and the brackets with what they hold; one that is not closed goes on to the
/// end.
std::vector<std::string_view> outer_brackets(std::string_view text) {
  std::vector<std::string_view> all;
  size_t begin = 0;
  int depth = 0;
  const auto end_at = [&](size_t end) {
    if (end > begin) all.push_back(text.substr(begin, end - begin));
    begin = end;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '(' || text[i + 1] == ')'))
      ++i;
    else if (text[i] == '(' && depth++ == 0)
      end_at(i);
    else if (text[i] == ')' && --depth == 0)
      end_at(i + 1);
  }
  end_at(text.size());
  return all;
}

std::string without_escapes(std::string_view text) {
  std::string all;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == '(' || text[i + 1] == ')')) ++i;
    all += text[i];
  }
  return all;
}

void add_absolute(std::string_view text, double weight, std::vector<PromptPart>& all) {
  for (const std::string_view piece : outer_brackets(text)) {
    const bool escaped = piece.size() > 1 && piece[piece.size() - 2] == '\\';
    if (piece.size() < 2 || piece.front() != '(' || piece.back() != ')' || escaped) {
      all.push_back({without_escapes(piece), weight});
      continue;
    }
    std::string_view inside = piece.substr(1, piece.size() - 2);
    double own = weight * round_weight;
    const size_t colon = inside.rfind(':');
    if (colon != std::string_view::npos && colon > 0)
      if (const auto given = parse_signed_number<double>(trimmed(inside.substr(colon + 1))); given && std::isfinite(*given))
        own = *given, inside = inside.substr(0, colon);
    add_absolute(inside, own, all);
  }
}

bool of_a_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || static_cast<unsigned char>(c) >= 0x80; }

}  // namespace

std::vector<PromptPart> weighted_parts(std::string_view prompt) { return Reader(prompt).read(); }

std::vector<PromptPart> absolute_parts(std::string_view prompt) {
  std::vector<PromptPart> all;
  add_absolute(prompt, 1, all);
  return joined(all);
}

std::vector<std::vector<PromptPart>> split_at_breaks(const std::vector<PromptPart>& parts) {
  std::vector<std::vector<PromptPart>> all(1);
  for (const PromptPart& p : parts) {
    std::string_view text = p.text;
    constexpr std::string_view word = "BREAK";
    for (size_t at = find_whole_word(text, word); at != text.npos; at = find_whole_word(text, word)) {
      if (at > 0) all.back().push_back({std::string(text.substr(0, at)), p.weight});
      all.emplace_back();
      text.remove_prefix(at + word.size());
    }
    if (!text.empty()) all.back().push_back({std::string(text), p.weight});
  }
  return all;
}

size_t find_whole_word(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !of_a_word(text[at - 1])) && (end == text.size() || !of_a_word(text[end]))) return at;
  }
  return std::string_view::npos;
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
