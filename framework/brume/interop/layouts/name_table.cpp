#include "brume/interop/layouts/name_table.h"

namespace brume {

void NameTable::add(const std::string& ours, const std::string& theirs) {
  ours_.emplace(theirs, ours);
  theirs_.emplace(ours, theirs);
}

void NameTable::add_alias(const std::string& ours, const std::string& theirs) { ours_.emplace(theirs, ours); }

std::optional<std::string> NameTable::look_up(const Prefixes& prefixes, std::string_view name) {
  for (size_t length = name.size(); length > 0;) {
    if (const auto at = prefixes.find(name.substr(0, length)); at != prefixes.end()) return at->second + std::string(name.substr(length));
    const size_t dot = length < 2 ? std::string_view::npos : name.rfind('.', length - 2);
    length = dot == std::string_view::npos ? 0 : dot + 1;
  }
  return {};
}

}  // namespace brume
