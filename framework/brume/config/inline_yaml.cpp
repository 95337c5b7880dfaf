#include "brume/config/inline_yaml.h"

#include <nlohmann/json.hpp>

namespace brume {
namespace {

std::string scalar_text(const Value& value) {
  const bool plain = !value.quoted && !value.scalar.empty() && value.scalar.find_first_of(",[]{}#:\"'\n\t&*!|>%@`") == value.scalar.npos;
  return plain ? value.scalar : nlohmann::json(value.scalar).dump();
}

}  // namespace

std::string inline_yaml(const Value& value) {
  if (value.is_null()) return "null";
  if (value.is_scalar()) return scalar_text(value);
  std::string text;
  for (const Value& item : value.items) text += (text.empty() ? "" : ", ") + inline_yaml(item);
  for (const Value::Entry& e : value.entries)
    text += (text.empty() ? "" : ", ") + scalar_text(Value::text(e.key)) + ": " + inline_yaml(e.value);
  return value.is_list() ? "[" + text + "]" : "{" + text + "}";
}

}  // namespace brume
