#include "brume/wildcards.h"

#include <fmt/format.h>

#include <filesystem>
#include <utility>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/file_hint.h"
#include "brume/core/seed.h"
#include "brume/files/text_file.h"

namespace brume {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view mark = "__";
constexpr int64_t most = 1000;         // replacements in one prompt
constexpr size_t longest = 1'000'000;  // bytes of the prompt that they make
constexpr uint64_t stream = 9;         // of the seed
constexpr uint64_t of_negatives = uint64_t(1) << 63;

std::vector<std::string> lines_in(const std::string& folder, std::string_view name, std::string_view option) {
  const fs::path file = fs::path(folder) / (std::string(name) + ".txt");
  if (name.find("..") != name.npos || name.starts_with("/"))
    throw ConfigError(fmt::format("{}: __{}__ lies outside the folder '{}'", option, name, folder));
  if (!fs::is_regular_file(file))
    throw ConfigError(fmt::format("{}: there is no file '{}' for __{}__{}", option, file.string(), name, file_hint(file.string())));
  const std::string text = read_text(file);
  std::vector<std::string> lines;
  for (const std::string_view line : lines_of(text))
    if (line.find_first_not_of(" \t\r") != line.npos && !line.starts_with("#")) lines.emplace_back(line);
  if (lines.empty()) throw ConfigError(fmt::format("{}: '{}' has no line", option, file.string()));
  return lines;
}

/// Returns the places of both marks of the first __NAME__ from `from` on; npos without one.
std::pair<size_t, size_t> next_wildcard(std::string_view text, size_t from) {
  size_t open = text.find(mark, from);
  while (open != text.npos) {
    const size_t close = text.find(mark, open + mark.size());
    if (close == text.npos) break;
    const std::string_view name = text.substr(open + mark.size(), close - open - mark.size());
    if (!name.empty() && name.find_first_of(" ,\n") == name.npos) return {open, close};
    open = close;
  }
  return {text.npos, text.npos};
}

}  // namespace

std::string wildcard_in(std::string_view prompt) {
  const auto [open, close] = next_wildcard(prompt, 0);
  return open == prompt.npos ? "" : std::string(prompt.substr(open, close + mark.size() - open));
}

std::string with_wildcards(std::string_view prompt, const std::string& folder, uint64_t seed, int64_t image, std::string_view option,
                           bool negative) {
  std::string text(prompt);
  int64_t replaced = 0;
  for (size_t from = 0;;) {
    const auto [open, close] = next_wildcard(text, from);
    if (open == text.npos) break;
    const std::string name = text.substr(open + mark.size(), close - open - mark.size());
    if (++replaced > most) throw ConfigError(fmt::format("{}: __{}__ stands for itself without end", option, name));
    const std::vector<std::string> lines = lines_in(folder, name, option);
    const uint64_t draw = mix_seed(mix_seed(seed, stream, uint64_t(image) + (negative ? of_negatives : 0)), uint64_t(replaced));
    const std::string& line = lines[size_t(draw % lines.size())];
    if (text.size() + line.size() > longest)
      throw ConfigError(fmt::format("{}: __{}__ makes a prompt of more than {} bytes", option, name, longest));
    text.replace(open, close + mark.size() - open, line);
    from = open;
  }
  return text;
}

}  // namespace brume
