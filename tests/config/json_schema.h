#pragma once
// A validator of the part of JSON Schema (draft 7) that brume's schema uses, as an editor applies it to YAML.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "brume/config/value.h"

namespace brume::test {

using Json = nlohmann::json;

/// YAML's core schema: what an editor takes a plain word for.
inline Json to_json(const Value& v) {
  switch (v.type) {
    case Value::Type::null: return nullptr;
    case Value::Type::list: {
      Json list = Json::array();
      for (const Value& item : v.items) list.push_back(to_json(item));
      return list;
    }
    case Value::Type::map: {
      Json map = Json::object();
      for (const Value::Entry& e : v.entries) map[e.key] = to_json(e.value);
      return map;
    }
    case Value::Type::scalar: break;
  }
  if (v.quoted) return v.scalar;
  if (v.scalar == "true" || v.scalar == "false") return v.scalar == "true";
  if (v.scalar == ".inf" || v.scalar == "-.inf") return v.scalar[0] == '-' ? -HUGE_VAL : HUGE_VAL;
  char* end = nullptr;
  const long long integer = std::strtoll(v.scalar.c_str(), &end, 10);
  if (!v.scalar.empty() && !*end) return integer;
  const double number = std::strtod(v.scalar.c_str(), &end);
  return !v.scalar.empty() && !*end ? Json(number) : Json(v.scalar);
}

class JsonSchema {
 public:
  explicit JsonSchema(Json root) : root_(std::move(root)) {}
  /// What is wrong with `value`, one line each; empty if it is valid.
  std::vector<std::string> check(const Json& value) const {
    std::vector<std::string> wrong;
    walk(root_, value, "", wrong);
    return wrong;
  }

 private:
  static bool is(const Json& v, const std::string& type) {
    if (type == "object") return v.is_object();
    if (type == "array") return v.is_array();
    if (type == "string") return v.is_string();
    if (type == "boolean") return v.is_boolean();
    if (type == "null") return v.is_null();
    if (type == "number") return v.is_number();
    if (type == "integer") return v.is_number_integer();
    throw std::logic_error("the schema names an unknown type " + type);
  }
  static std::vector<std::string> list(const Json& v) {
    return v.is_array() ? v.get<std::vector<std::string>>() : std::vector<std::string>{v};
  }

  void walk(const Json& schema, const Json& value, const std::string& at, std::vector<std::string>& wrong) const {
    for (const auto& [key, rule] : schema.items()) {
      const auto no = [&](const std::string& what) { wrong.push_back(at + ": " + what); };
      if (key == "$ref") {
        const std::string name = rule;
        walk(root_.at(Json::json_pointer(name.substr(1))), value, at, wrong);
      } else if (key == "type") {
        const auto types = list(rule);
        if (std::none_of(types.begin(), types.end(), [&](const auto& t) { return is(value, t); })) no("is no " + rule.dump());
      } else if (key == "enum") {
        if (std::find(rule.begin(), rule.end(), value) == rule.end()) no(value.dump() + " is none of " + rule.dump());
      } else if (key == "const") {
        if (value != rule) no(value.dump() + " is not " + rule.dump());
      } else if (key == "minimum" || key == "maximum" || key == "exclusiveMinimum") {
        if (!value.is_number()) continue;
        const double x = value, bound = rule;
        if (key == "minimum" ? x < bound : key == "maximum" ? x > bound : x <= bound)
          no(value.dump() + " breaks " + key + " " + rule.dump());
      } else if (key == "anyOf") {
        if (std::none_of(rule.begin(), rule.end(), [&](const Json& s) { return valid(s, value); }))
          no(value.dump() + " fits nothing allowed here");
      } else if (key == "allOf") {
        for (const Json& s : rule) walk(s, value, at, wrong);
      } else if (key == "required") {
        if (value.is_object())
          for (const Json& name : rule)
            if (!value.contains(name)) no("lacks " + name.dump());
      } else if (key == "items") {
        if (value.is_array())
          for (size_t i = 0; i < value.size(); ++i) walk(rule, value[i], at + "." + std::to_string(i), wrong);
      } else if (key == "properties") {
        for (const auto& [name, s] : rule.items())
          if (value.is_object() && value.contains(name)) walk(s, value[name], at + "." + name, wrong);
      } else if (key == "additionalProperties") {
        if (!rule.is_object() && rule != false) throw std::logic_error("additionalProperties that are neither false nor a schema");
        const Json known = schema.value("properties", Json::object());
        const Json given = value.is_object() ? value : Json::object();
        for (const auto& [name, one] : given.items()) {
          if (known.contains(name)) continue;
          rule.is_object() ? walk(rule, one, at + "." + name, wrong) : no("unknown key " + name);
        }
      } else if (key != "$schema" && key != "title" && key != "description" && key != "default" && key != "definitions" &&
                 key != "deprecated") {
        throw std::logic_error("the schema uses the keyword " + key + ", which this validator does not know");
      }
    }
  }
  bool valid(const Json& schema, const Json& value) const {
    std::vector<std::string> wrong;
    walk(schema, value, "", wrong);
    return wrong.empty();
  }
  Json root_;
};

}  // namespace brume::test
