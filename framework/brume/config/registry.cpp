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
  const auto it = kinds_.find(current_kind(kind));
  return it == kinds_.end() ? std::vector<std::string>{} : keys(it->second);
}

const Entry& Registry::entry(std::string_view kind, std::string_view name) const {
  const auto table = kinds_.find(current_kind(kind));
  if (table == kinds_.end()) throw ConfigError(fmt::format("unknown kind '{}'{}", kind, hint(kind, kinds())));
  const auto it = table->second.find(current(kind, name));
  if (it == table->second.end()) throw ConfigError(fmt::format("unknown {} '{}'{}", table->first, name, hint(name, keys(table->second))));
  return it->second;
}

void Registry::renamed(std::string_view kind, std::string former, std::string name) {
  former_[std::string(kind)].emplace(std::move(former), std::move(name));
}

void Registry::renamed_kind(std::string former, std::string kind) { former_kinds_.emplace(std::move(former), std::move(kind)); }

std::string Registry::current_kind(std::string_view kind) const {
  const auto it = former_kinds_.find(kind);
  return it == former_kinds_.end() || kinds_.contains(kind) ? std::string(kind) : it->second;
}

std::string Registry::current(std::string_view kind, std::string_view name) const {
  const std::string of = current_kind(kind);
  const auto table = kinds_.find(of);
  const auto former = former_.find(of);
  if (former == former_.end() || (table != kinds_.end() && table->second.contains(name))) return std::string(name);
  const auto it = former->second.find(name);
  return it == former->second.end() ? std::string(name) : it->second;
}

std::vector<std::string> Registry::former_names(std::string_view kind, std::string_view name) const {
  std::vector<std::string> names;
  const auto former = former_.find(current_kind(kind));
  if (former == former_.end()) return names;
  for (const auto& [old, now] : former->second)
    if (now == name && current(kind, old) == name) names.push_back(old);
  return names;
}

void Registry::warn(const Problem& warning) const {
  if (warn_) warn_(warning);
}

std::vector<std::string> Registry::libraries() const {
  std::set<std::string> all;
  for (const auto& [kind, table] : kinds_)
    for (const auto& [name, entry] : table)
      if (entry.origin != "built-in") all.insert(entry.origin);
  return {all.begin(), all.end()};
}

}  // namespace brume
