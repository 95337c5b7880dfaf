#include "brume/config/registry.h"

#include <fmt/format.h>

#include <set>

#include "brume/config/suggest.h"

namespace brume {
namespace {

template <class Map>
std::vector<std::string> keys(const Map& map) {
  std::vector<std::string> names;
  for (const auto& [name, _] : map) names.push_back(name);
  return names;
}

}  // namespace

void Registry::insert(std::string_view kind, std::string name, Entry entry) {
  auto& table = kinds_[std::string(kind)];
  const auto [it, fresh] = table.try_emplace(name, std::move(entry));
  if (!fresh) throw ConfigError(fmt::format("{} '{}' is registered twice: by {} and by {}", kind, name, it->second.origin, origin_));
}

const std::vector<std::string> Registry::kinds() const { return keys(kinds_); }

std::vector<std::string> Registry::names(std::string_view kind) const {
  const auto it = kinds_.find(kind);
  return it == kinds_.end() ? std::vector<std::string>{} : keys(it->second);
}

const Entry& Registry::entry(std::string_view kind, std::string_view name) const {
  const auto table = kinds_.find(kind);
  if (table == kinds_.end()) throw ConfigError(fmt::format("unknown kind '{}'{}", kind, hint(kind, kinds())));
  const auto it = table->second.find(name);
  if (it == table->second.end()) throw ConfigError(fmt::format("unknown {} '{}'{}", kind, name, hint(name, keys(table->second))));
  return it->second;
}

std::vector<std::string> Registry::libraries() const {
  std::set<std::string> all;
  for (const auto& [kind, table] : kinds_)
    for (const auto& [name, entry] : table)
      if (entry.origin != "built-in") all.insert(entry.origin);
  return {all.begin(), all.end()};
}

}  // namespace brume
