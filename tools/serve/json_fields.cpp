#include "serve/json_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/suggest.h"
#include "brume/config/utf8.h"
#include "brume/files/json.h"

namespace brume::tools {
namespace {

[[noreturn]] void refuse(const char* field, const std::string& why) { throw HttpError(400, fmt::format("{}: {}", field, why), field); }

std::string shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text.replace(57, text.npos, "...");
  return text;
}

constexpr size_t most_values = 100000;  ///< of a body: a parsed value takes many times the bytes of its text

bool has_many_values(std::string_view json) {
  size_t commas = 0;
  bool quoted = false;
  for (size_t i = 0; i < json.size() && commas < most_values; ++i) {
    if (json[i] == '"') quoted = !quoted;
    if (quoted && json[i] == '\\') ++i;
    commas += !quoted && json[i] == ',';
  }
  return commas >= most_values;
}

}  // namespace

nlohmann::json json_body(std::string_view body) {
  if (const auto wrong = invalid_utf8(body)) throw HttpError(400, fmt::format("the body is no UTF-8, from byte {} on", *wrong), "body");
  if (has_many_values(body)) throw HttpError(400, fmt::format("the body has more than {}", counted(most_values, "value")), "body");
  nlohmann::json object = json_or_discarded(body);
  if (object.is_discarded()) throw HttpError(400, "the body is no JSON, or nests too deep", "body");
  if (!object.is_object()) throw HttpError(400, "the body is no JSON object", "body");
  return object;
}

const nlohmann::json* JsonFields::find(const char* name) {
  known_.push_back(name);
  const auto at = object_.find(name);
  return at == object_.end() || at->is_null() ? nullptr : &*at;
}

std::optional<std::string> JsonFields::text(const char* name, size_t most_bytes) {
  const nlohmann::json* value = find(name);
  if (!value) return {};
  if (!value->is_string()) refuse(name, fmt::format("{} is no text", shown(*value)));
  std::string text = value->get<std::string>();
  if (text.size() > most_bytes) refuse(name, fmt::format("has {} bytes; at most {} are taken", text.size(), most_bytes));
  if (text.find('\0') != text.npos) refuse(name, "holds a zero byte");
  return text;
}

std::vector<std::string> JsonFields::texts(const char* name, size_t most) {
  const nlohmann::json* value = find(name);
  if (!value) return {};
  if (value->is_string()) return {*text(name)};
  if (!value->is_array()) refuse(name, fmt::format("{} is no list of texts", shown(*value)));
  if (value->size() > most) refuse(name, fmt::format("has {}; at most {} are taken", counted(value->size(), "item"), most));
  std::vector<std::string> all;
  size_t bytes = 0;
  for (const nlohmann::json& item : *value) {
    const nlohmann::json one{{name, item}};
    const auto read = JsonFields(one).text(name);
    if (!read) refuse(name, "holds null instead of a text");
    if ((bytes += read->size()) > longest_text) refuse(name, fmt::format("has more than {} bytes", longest_text));
    all.push_back(*read);
  }
  return all;
}

std::optional<int64_t> JsonFields::whole(const char* name, int64_t least, int64_t most) {
  const nlohmann::json* value = find(name);
  if (!value) return {};
  const bool fits = value->is_number_integer() && !(value->is_number_unsigned() && value->get<uint64_t>() > uint64_t(INT64_MAX));
  const bool rounded =
      value->is_number_float() && std::abs(value->get<double>()) < 1e15 && std::floor(value->get<double>()) == value->get<double>();
  if (!fits && !rounded) refuse(name, fmt::format("{} is no whole number from {} to {}", shown(*value), least, most));
  const int64_t number = rounded ? int64_t(value->get<double>()) : value->get<int64_t>();
  if (number < least || number > most) refuse(name, fmt::format("{} is outside [{}, {}]", number, least, most));
  return number;
}

std::optional<double> JsonFields::real(const char* name, double least, double most) {
  const nlohmann::json* value = find(name);
  if (!value) return {};
  if (!value->is_number()) refuse(name, fmt::format("{} is no number", shown(*value)));
  const double number = value->get<double>();
  if (!(number >= least && number <= most)) refuse(name, fmt::format("{} is outside [{}, {}]", number, least, most));
  return number;
}

std::optional<bool> JsonFields::flag(const char* name) {
  const nlohmann::json* value = find(name);
  if (!value) return {};
  if (!value->is_boolean()) refuse(name, fmt::format("{} is neither true nor false", shown(*value)));
  return value->get<bool>();
}

std::optional<uint64_t> JsonFields::seed(const char* name) {
  const nlohmann::json* value = find(name);
  if (!value) return {};
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  const std::string text = value->is_string() ? value->get<std::string>() : value->is_number_integer() ? value->dump() : "";
  if (text == "-1") return std::random_device()();
  const auto number = parse_number<uint64_t>(text);
  if (!number) refuse(name, fmt::format("{} is no whole number from 0 to 18446744073709551615, and not -1", shown(*value)));
  return number;
}

std::string JsonFields::plugin(const char* name) {
  const nlohmann::json* value = find(name);
  if (!value) return "";
  if (value->is_string()) return *text(name, 10000);
  if (!value->is_object()) refuse(name, fmt::format("{} is neither a name nor an object with a type", shown(*value)));
  const std::string json = value->dump();
  if (json.size() > 10000) refuse(name, "is longer than 10000 bytes");
  return json;
}

void JsonFields::ignore(const std::vector<const char*>& names) { known_.insert(known_.end(), names.begin(), names.end()); }

std::vector<std::string> JsonFields::unknown() const {
  std::vector<std::string> warnings;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    if (warnings.size() == 20) break;
    const std::string near = closest(key, known_);
    warnings.push_back(
        fmt::format("unknown field {} changes nothing{}", in_quotes(key), near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  return warnings;
}

}  // namespace brume::tools
