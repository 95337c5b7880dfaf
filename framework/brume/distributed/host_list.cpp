#include "brume/distributed/host_list.h"

#include <fmt/format.h>

#include "brume/config/errors.h"
#include "brume/config/number.h"

namespace brume {
namespace {

constexpr int64_t most = 1 << 20;  ///< hosts of a list

[[noreturn]] void refuse(std::string_view list, const std::string& name, const char* kind, const char* example) {
  throw ConfigError(fmt::format("{} = '{}' is no list of {}, such as '{}'", name, list, kind, example));
}

/// Splits at commas that are in no bracket. Returns nothing if the brackets do not match.
std::vector<std::string_view> items_of(std::string_view list) {
  std::vector<std::string_view> items;
  bool inside = false;
  size_t begin = 0;
  for (size_t i = 0; i <= list.size(); ++i) {
    const char c = i < list.size() ? list[i] : ',';
    if ((c == '[' && inside) || (c == ']' && !inside)) return {};
    if (c == '[' || c == ']') inside = c == '[';
    if (c != ',' || (inside && i < list.size())) continue;
    items.push_back(list.substr(begin, i - begin));
    begin = i + 1;
  }
  return inside ? std::vector<std::string_view>() : items;
}

/// Appends `head` with each number of a range such as "001-004", which are as wide as its first. Returns false if it is no range.
bool add_range(std::string_view range, const std::string& head, std::vector<std::string>& to) {
  const size_t dash = range.find('-');
  const std::string_view low = range.substr(0, dash), high = dash == range.npos ? low : range.substr(dash + 1);
  const auto first = parse_number<uint32_t>(low), last = parse_number<uint32_t>(high);
  if (!first || !last || *last < *first || int64_t(*last - *first) + int64_t(to.size()) >= most) return false;
  for (uint64_t i = *first; i <= *last; ++i) to.push_back(fmt::format("{}{:0{}}", head, i, low.size()));
  return true;
}

/// Returns the hosts of one item, whose brackets match; nothing if a range is wrong.
std::vector<std::string> expanded(std::string_view item) {
  std::vector<std::string> heads{""};
  while (!item.empty()) {
    const size_t open = std::min(item.find('['), item.size());
    for (std::string& head : heads) head += item.substr(0, open);
    if (open == item.size()) break;
    const size_t close = item.find(']');
    std::vector<std::string> longer;
    for (const std::string& head : heads)
      for (const std::string_view range : items_of(item.substr(open + 1, close - open - 1)))
        if (!add_range(range, head, longer)) return {};
    heads = std::move(longer);
    item.remove_prefix(close + 1);
  }
  return heads;
}

}  // namespace

std::vector<std::string> hosts_in(std::string_view list, const std::string& name) {
  std::vector<std::string> hosts;
  for (const std::string_view item : items_of(list)) {
    const std::vector<std::string> some = item.empty() ? std::vector<std::string>() : expanded(item);
    if (some.empty()) refuse(list, name, "hosts", "n[001-004,7]");
    hosts.insert(hosts.end(), some.begin(), some.end());
  }
  if (hosts.empty()) refuse(list, name, "hosts", "n[001-004,7]");
  return hosts;
}

std::vector<int64_t> tasks_per_host(std::string_view list, const std::string& name) {
  std::vector<int64_t> tasks;
  const auto wrong = [&] { refuse(list, name, "tasks per host", "2(x3),1"); };
  for (std::string_view item : items_of(list)) {
    const auto count = take_number<uint32_t>(item);
    uint32_t times = 1;
    if (item.starts_with("(x") && item.ends_with(')')) {
      const auto given = parse_number<uint32_t>(item.substr(2, item.size() - 3));
      if (!given) wrong();
      times = *given;
    } else if (!item.empty()) {
      wrong();
    }
    if (!count || times == 0 || int64_t(tasks.size()) + times > most) wrong();
    tasks.insert(tasks.end(), times, *count);
  }
  return tasks;
}

}  // namespace brume
