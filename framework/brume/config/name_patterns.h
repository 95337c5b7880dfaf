#pragma once
// Choosing weights by patterns of their names.
#include <set>
#include <string>
#include <vector>

namespace brume {

/// Returns the names that the patterns match. A pattern is a name with `*` (any characters, dots too), `?` and `[...]`; one that begins
/// with `!` takes names away again that earlier ones matched. Throws ConfigError with every pattern that matches nothing, under the paths
/// `path`.0, `path`.1, ..., and the nearest pattern that would, or the nearest of `words`, which stand for patterns there. A pattern may
/// say `text_encoder.` for the `conditioner.` that names begin with.
std::set<std::string> matching(const std::vector<std::string>& patterns, const std::vector<std::string>& names, const std::string& path,
                               const std::vector<std::string>& words = {});

/// Returns the names that one pattern matches. Throws ConfigError under `path` if it matches nothing.
std::set<std::string> matching(const std::string& pattern, const std::vector<std::string>& names, const std::string& path,
                               const std::vector<std::string>& words = {});

}  // namespace brume
