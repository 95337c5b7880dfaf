#include "brume/config/suggest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace brume {
namespace {

/// Returns the optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours each cost one.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

}  // namespace

std::string closest(std::string_view word, const std::vector<std::string>& words) {
  size_t best = word.size() / 3 + 2;  // farther than this and a suggestion would only puzzle
  std::string hit;
  for (const std::string& candidate : words) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best && distance < std::max(word.size(), candidate.size())) best = distance, hit = candidate;
  }
  return hit;
}

std::string hint(std::string_view word, const std::vector<std::string>& words) {
  if (const std::string near = closest(word, words); !near.empty()) return fmt::format("; did you mean '{}'?", near);
  if (words.empty()) return "; none is known";
  return fmt::format("; known: {}", fmt::join(words, ", "));
}

}  // namespace brume
