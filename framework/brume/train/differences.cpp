#include "brume/train/differences.h"

#include <fmt/format.h>

namespace brume {
namespace {

std::string text_of(const Value* value) {
  if (!value || value->is_null()) return "nothing";
  if (value->is_scalar()) return value->scalar.empty() ? "''" : value->scalar;
  if (value->is_map()) return value->find("type") ? value->find("type")->scalar : "a map";
  std::string list;
  for (const Value& item : value->items) list += (list.empty() ? "" : ", ") + text_of(&item);
  return "[" + list + "]";
}

bool same_type(const Value& a, const Value& b) { return text_of(a.find("type")) == text_of(b.find("type")); }

std::string below(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

void compare(const std::string& path, const Value* a, const Value* b, std::vector<Difference>& all) {
  if (a && b && a->is_map() && b->is_map()) {
    if (!same_type(*a, *b)) return all.push_back({below(path, "type"), text_of(a), text_of(b)});
    for (const Value::Entry& e : a->entries) compare(below(path, e.key), &e.value, b->find(e.key), all);
    for (const Value::Entry& e : b->entries)
      if (!a->find(e.key)) compare(below(path, e.key), nullptr, &e.value, all);
  } else if (a && b && a->is_list() && b->is_list() && a->items.size() == b->items.size()) {
    for (size_t i = 0; i < a->items.size(); ++i) compare(below(path, fmt::to_string(i)), &a->items[i], &b->items[i], all);
  } else if (text_of(a) != text_of(b)) {
    all.push_back({path, text_of(a), text_of(b)});
  }
}

}  // namespace

bool Difference::of_model() const {
  if (path.ends_with(".checkpoint")) return false;  // how gradients are computed, not what
  const std::string section = path.substr(0, path.find('.'));
  return section == "model" || section == "classifier" || section == "autoencoder";
}

bool Difference::left_to_data() const { return path.ends_with(".class_names") && after == "[]"; }

std::vector<Difference> differences(const Value& before, const Value& after) {
  std::vector<Difference> all;
  compare("", &before, &after, all);
  return all;
}

}  // namespace brume
