#include "brume/config/grouped.h"

#include <fmt/format.h>

#include <cctype>
#include <unordered_map>

namespace brume {

std::vector<std::string> grouped(const std::vector<std::string>& texts) {
  std::unordered_map<std::string, size_t> index;
  std::vector<std::string> firsts;
  std::vector<size_t> counts;
  for (const std::string& text : texts) {
    std::string form;
    for (const char c : text)
      if (!std::isdigit(static_cast<unsigned char>(c))) form += c;
    const auto [at, fresh] = index.emplace(form, firsts.size());
    if (fresh) firsts.push_back(text), counts.push_back(0);
    ++counts[at->second];
  }
  for (size_t i = 0; i < firsts.size(); ++i)
    if (counts[i] > 1) firsts[i] += fmt::format(" ({} like this)", counts[i]);
  return firsts;
}

}  // namespace brume
