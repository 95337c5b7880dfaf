#include "brume/text/clip_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "brume/config/errors.h"
#include "brume/config/utf8.h"
#include "brume/text/unicode.h"

namespace brume::text {
namespace {

constexpr std::string_view start_of_text = "<|startoftext|>", end_of_text = "<|endoftext|>", word_end = "</w>";

/// Returns GPT-2's letters: printable bytes stand for themselves, the others for the characters from 256 on.
std::array<std::string, 256> byte_letters() {
  std::array<std::string, 256> letters;
  char32_t next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    append_utf8(letters[size_t(b)], printable ? char32_t(b) : next++);
  }
  return letters;
}

/// Returns true for Chinese, Japanese and Korean ideographs, which stand alone.
bool is_ideograph(char32_t c) {
  constexpr std::pair<char32_t, char32_t> blocks[] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
                                                      {0x2B740, 0x2B81F}, {0x2B820, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(blocks), std::end(blocks), [&](const auto& b) { return c >= b.first && c <= b.second; });
}

/// Returns the text composed (NFC), then in lower case, without control characters, every white space a blank.
std::vector<char32_t> cleaned(std::string_view text) {
  std::string out;
  for (const char32_t c : characters(text)) {
    if (c == 0xFFFD) continue;
    const bool blank = c == '\t' || c == '\n' || c == '\r' || (is_space(c) && !is_control(c));
    if (blank) {
      out += ' ';
    } else if (is_ideograph(c)) {
      out += ' ';
      append_utf8(out, c);
      out += ' ';
    } else if (!is_control(c)) {
      append_utf8(out, c);
    }
  }
  return characters(lower_case(composed(out)));
}

/// Returns the end of the word that begins at `at`, by 's|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+
size_t word_end_of(const std::vector<char32_t>& text, size_t at) {
  const auto letter = [&](size_t i) { return i < text.size() ? text[i] : U'\0'; };
  if (text[at] == '\'') {
    const char32_t a = letter(at + 1), b = letter(at + 2);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return at + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return at + 3;
  }
  if (is_number(text[at])) return at + 1;
  const bool letters = is_letter(text[at]);
  size_t end = at + 1;
  while (end < text.size() && !is_space(text[end]) && !is_number(text[end]) && is_letter(text[end]) == letters) ++end;
  return end;
}

}  // namespace

ClipTokenizer::ClipTokenizer(std::string_view vocabulary, std::string_view merges, const std::string& name, std::optional<int64_t> pad,
                             std::string_view added)
    : letters_(byte_letters()) {
  for (int b = 0; b < 256; ++b) bytes_.emplace(letters_[size_t(b)], b);
  read_vocabulary(vocabulary, name);
  read_merges(merges, name);
  if (!added.empty()) read_added(added, name);
  pad_ = pad.value_or(end_);
  if (pad_ < 0 || pad_ >= size())
    throw ConfigError(fmt::format("{}: has no token {} to pad with: they are 0 to {}", name, pad_, size() - 1));
  for (const int64_t id : {begin_, end_, pad_})
    if (const std::string& token = tokens_[size_t(id)]; !token.empty()) whole_.emplace(token, std::vector{id});
}

void ClipTokenizer::read_vocabulary(std::string_view json, const std::string& name) {
  const auto refuse = [&](const std::string& why) { throw ConfigError(fmt::format("{}: vocab.json {}", name, why)); };
  const nlohmann::json all = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
  if (!all.is_object() || all.empty()) refuse("is no JSON object of tokens and their numbers");
  tokens_.resize(all.size());
  for (const auto& [token, id] : all.items()) {
    const int64_t number = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (number < 0 || number >= int64_t(all.size()))
      refuse(fmt::format("gives the token {} no number from 0 to {}", in_quotes(token), all.size() - 1));
    if (!tokens_[size_t(number)].empty()) refuse(fmt::format("gives the number {} twice", number));
    tokens_[size_t(number)] = token;
    ids_.emplace(token, number);
  }
  for (const std::string_view special : {start_of_text, end_of_text})
    if (!ids_.contains(std::string(special))) refuse(fmt::format("lacks the token {}", special));
  begin_ = ids_.at(std::string(start_of_text));
  end_ = ids_.at(std::string(end_of_text));
}

void ClipTokenizer::read_merges(std::string_view lines, const std::string& name) {
  lines = without_byte_order_mark(lines);
  for (int64_t line = 1; !lines.empty(); ++line) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    std::string_view row = lines.substr(0, end);
    lines.remove_prefix(std::min(end + 1, lines.size()));
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty() || (line == 1 && row.starts_with("#version"))) continue;
    const size_t blank = row.find(' ');
    if (blank == 0 || blank >= row.size() - 1 || row.find(' ', blank + 1) != std::string_view::npos)
      throw ConfigError(fmt::format("{}: merges.txt:{}: two tokens are expected, not {}", name, line, in_quotes(row)));
    ranks_.emplace(row, int64_t(ranks_.size()));
  }
}

/// Reads added tokens. Their numbers are behind those of the vocabulary; what lies between them is no token.
void ClipTokenizer::read_added(std::string_view json, const std::string& name) {
  constexpr int64_t most_gaps = 1000;
  const auto refuse = [&](const std::string& why) { throw ConfigError(fmt::format("{}: added_tokens.json {}", name, why)); };
  const nlohmann::json all = nlohmann::json::parse(json.begin(), json.end(), nullptr, false);
  if (!all.is_object()) refuse("is no JSON object of tokens and their numbers");
  const int64_t known = size(), most = known + int64_t(all.size()) + most_gaps;
  for (const auto& [token, id] : all.items()) {
    const int64_t number = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (const auto found = ids_.find(token); found != ids_.end() && found->second == number) continue;
    if (token.empty() || number < known || number >= most)
      refuse(fmt::format("gives the token {} no number from {} to {}", in_quotes(token), known, most - 1));
    if (number >= size()) tokens_.resize(size_t(number) + 1);
    if (!tokens_[size_t(number)].empty()) refuse(fmt::format("gives the number {} twice", number));
    tokens_[size_t(number)] = token;
    whole_[token] = {number};
  }
  for (auto& [token, ids] : whole_)
    for (auto next = whole_.find(token + "_1"); next != whole_.end(); next = whole_.find(fmt::format("{}_{}", token, ids.size())))
      ids.push_back(next->second.front());
}

std::vector<int64_t> ClipTokenizer::encode(std::string_view text) const {
  if (const auto at = invalid_utf8(text)) throw ConfigError(fmt::format("a prompt is not UTF-8 at byte {}: {}", *at, in_quotes(text)));
  std::vector<int64_t> ids;
  while (true) {  // special tokens may be written out
    size_t at = text.npos;
    const std::pair<const std::string, std::vector<int64_t>>* first = nullptr;
    for (const auto& word : whole_) {
      const size_t found = text.find(word.first);
      if (found > at || found == text.npos || (found == at && word.first.size() <= first->first.size())) continue;
      at = found;
      first = &word;
    }
    encode_plain(text.substr(0, at), ids);
    if (at == text.npos) return ids;
    ids.insert(ids.end(), first->second.begin(), first->second.end());
    text.remove_prefix(at + first->first.size());
  }
}

void ClipTokenizer::encode_plain(std::string_view text, std::vector<int64_t>& ids) const {
  const std::vector<char32_t> clean = cleaned(text);
  for (size_t at = 0; at < clean.size();) {
    if (is_space(clean[at])) {
      ++at;
      continue;
    }
    std::string word;
    for (const size_t end = word_end_of(clean, at); at < end; ++at) append_utf8(word, clean[at]);
    encode_word(word, ids);
  }
}

/// Joins the pair of the lowest rank wherever it stands, as long as there is one.
void ClipTokenizer::encode_word(const std::string& bytes, std::vector<int64_t>& ids) const {
  constexpr size_t longest = 10000;  // the time grows with the square, and a context holds 77 tokens
  if (bytes.size() > longest)
    throw ConfigError(fmt::format("a prompt has a word of {} bytes; {} is the most: {}", bytes.size(), longest, in_quotes(bytes)));
  std::vector<std::string> parts;
  for (const char b : bytes) parts.push_back(letters_[static_cast<unsigned char>(b)]);
  parts.back() += word_end;
  while (parts.size() > 1) {
    constexpr int64_t none = std::numeric_limits<int64_t>::max();
    int64_t best = none;
    std::string left, right;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks_.find(parts[i] + ' ' + parts[i + 1]);
      if (found == ranks_.end() || found->second >= best) continue;
      best = found->second;
      left = parts[i];
      right = parts[i + 1];
    }
    if (best == none) break;
    std::vector<std::string> joined;
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool pair = i + 1 < parts.size() && parts[i] == left && parts[i + 1] == right;
      joined.push_back(pair ? left + right : std::move(parts[i]));
      i += pair;
    }
    parts = std::move(joined);
  }
  for (const std::string& part : parts) {
    const auto found = ids_.find(part);
    ids.push_back(found == ids_.end() ? end_ : found->second);  // as CLIP has it: the unknown token is the end
  }
}

std::string ClipTokenizer::decode(const std::vector<int64_t>& ids) const {
  std::string out;
  for (const int64_t id : ids) {
    if (id < 0 || id >= size())
      throw ConfigError(fmt::format("token {} is out of range: the tokenizer has {}, 0 to {}", id, size(), size() - 1));
    if (id == begin_ || id == end_) continue;
    std::string_view token = tokens_[size_t(id)];
    if (!ids_.contains(std::string(token))) {  // added
      if (!out.empty() && !out.ends_with(' ')) out += ' ';
      out += std::string(token) + ' ';
      continue;
    }
    const bool last = token.ends_with(word_end);
    if (last) token.remove_suffix(word_end.size());
    for (const char32_t c : characters(token)) {
      std::string letter;
      append_utf8(letter, c);
      if (const auto byte = bytes_.find(letter); byte != bytes_.end()) out += static_cast<char>(static_cast<unsigned char>(byte->second));
    }
    if (last) out += ' ';
  }
  if (out.ends_with(' ')) out.pop_back();
  return out;
}

}  // namespace brume::text
