#pragma once
// "did you mean ...?"
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// Returns the word of `words` nearest to `word` (edit distance with transpositions), or "" if none is near.
std::string closest(std::string_view word, const std::vector<std::string>& words);

/// Returns "; did you mean 'ddim'?" if a word is near, else "; known: a, b, c".
std::string hint(std::string_view word, const std::vector<std::string>& words);

}  // namespace brume
