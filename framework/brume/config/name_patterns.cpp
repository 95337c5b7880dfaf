#include "brume/config/name_patterns.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include "brume/config/errors.h"
#include "brume/config/suggest.h"

namespace brume {
namespace {

/// Returns "network.down.*" for every part of a name before a dot, and the name.
std::vector<std::string> patterns_of(const std::vector<std::string>& names) {
  std::set<std::string> all(names.begin(), names.end());
  for (const std::string& name : names)
    for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) all.insert(name.substr(0, dot) + ".*");
  return {all.begin(), all.end()};
}

std::string nearest_pattern(const std::string& pattern, const std::vector<std::string>& names, const std::vector<std::string>& words) {
  std::vector<std::string> all = patterns_of(names);
  all.insert(all.end(), words.begin(), words.end());
  const std::string near = closest(pattern, all);
  if (!near.empty()) return fmt::format("; did you mean '{}'?", near);
  std::set<std::string> first(words.begin(), words.end());
  for (const std::string& name : names) first.insert(name.substr(0, name.find('.')) + ".*");
  return hint(pattern, {first.begin(), first.end()});
}

/// Returns the pattern as names begin.
std::string as_named(const std::string& pattern) {
  constexpr std::string_view other = "text_encoder.", own = "conditioner.";
  return pattern.starts_with(other) ? std::string(own) + pattern.substr(other.size()) : pattern;
}

}  // namespace

std::set<std::string> matching(const std::string& pattern, const std::vector<std::string>& names, const std::string& path,
                               const std::vector<std::string>& words) {
  try {
    return matching(std::vector<std::string>{pattern}, names, path, words);
  } catch (const ConfigError& e) {
    throw ConfigError({Problem{{}, path, e.problems().front().message}});
  }
}

std::set<std::string> matching(const std::vector<std::string>& patterns, const std::vector<std::string>& names, const std::string& path,
                               const std::vector<std::string>& words) {
  std::set<std::string> matched;
  std::vector<Problem> problems;
  for (size_t i = 0; i < patterns.size(); ++i) {
    const bool except = patterns[i].starts_with("!");
    const std::string pattern = patterns[i].substr(except ? 1 : 0);
    const std::string wanted = as_named(pattern);
    size_t hits = 0;
    for (const std::string& name : names) {
      if (fnmatch(wanted.c_str(), name.c_str(), 0) != 0) continue;
      ++hits;
      if (except)
        matched.erase(name);
      else
        matched.insert(name);
    }
    if (hits == 0)
      problems.push_back(
          {{}, fmt::format("{}.{}", path, i), fmt::format("'{}' matches no weight{}", pattern, nearest_pattern(wanted, names, words))});
  }
  if (!problems.empty()) throw ConfigError(std::move(problems));
  return matched;
}

}  // namespace brume
