#include "brume/interop/infotext.h"

#include <algorithm>
#include <string_view>

namespace brume {
namespace {

constexpr std::string_view between = ", ";

/// Returns the end of the value that a line begins with: of its quotes, or the next comma.
size_t end_of_value(std::string_view line) {
  if (line.starts_with('"'))
    for (size_t i = 1; i < line.size(); ++i) {
      if (line[i] == '"') return i + 1;
      i += line[i] == '\\';
    }
  return std::min(line.find(between), line.size());
}

std::string text_of(std::string_view value) {
  if (!value.starts_with('"')) return std::string(value);
  const auto text = nlohmann::json::parse(value, nullptr, false);
  return text.is_string() ? text.get<std::string>() : std::string(value);
}

nlohmann::ordered_json fields_of(std::string_view line) {
  nlohmann::ordered_json fields = nlohmann::ordered_json::object();
  while (!line.empty()) {
    const size_t colon = line.find(": "), comma = line.find(between);
    size_t end = comma;
    if (colon != line.npos && colon < comma) {
      const std::string key(line.substr(0, colon));
      line.remove_prefix(colon + 2);
      end = end_of_value(line);
      fields[key] = text_of(line.substr(0, end));
    }
    line.remove_prefix(std::min(end, line.size()));
    line.remove_prefix(line.starts_with(between) ? between.size() : std::min<size_t>(1, line.size()));
  }
  return fields;
}

}  // namespace

nlohmann::ordered_json infotext_fields(const std::string& text) {
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  const std::string whole = text.substr(0, text.find_last_not_of(" \r\n") + 1);
  const size_t last = whole.rfind('\n');
  const std::string line = whole.substr(last == whole.npos ? 0 : last + 1);
  if (!line.starts_with("Steps: ")) return all;
  std::string prompt = last == whole.npos ? "" : whole.substr(0, last), negative;
  const std::string mark(infotext_negative);
  const size_t at = prompt.starts_with(mark) ? 0 : prompt.find("\n" + mark);
  if (at != prompt.npos) {
    negative = prompt.substr(at + (prompt.starts_with(mark) ? 0 : 1) + mark.size());
    prompt.resize(at);
  }
  all["Prompt"] = prompt;
  all["Negative prompt"] = negative;
  all.update(fields_of(line));
  return all;
}

}  // namespace brume
