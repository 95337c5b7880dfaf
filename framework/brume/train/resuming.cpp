#include "brume/train/resuming.h"

#include <fmt/format.h>

#include <algorithm>

namespace brume {
namespace {

/// One key that differs.
struct Change {
  std::string path, was, would_be;
};

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

void compare(const std::string& path, const Value* a, const Value* b, std::vector<Change>& changes) {
  if (a && b && a->is_map() && b->is_map()) {
    if (!same_type(*a, *b)) return changes.push_back({below(path, "type"), text_of(a), text_of(b)});
    for (const Value::Entry& e : a->entries) compare(below(path, e.key), &e.value, b->find(e.key), changes);
    for (const Value::Entry& e : b->entries)
      if (!a->find(e.key)) compare(below(path, e.key), nullptr, &e.value, changes);
  } else if (a && b && a->is_list() && b->is_list() && a->items.size() == b->items.size()) {
    for (size_t i = 0; i < a->items.size(); ++i) compare(below(path, fmt::to_string(i)), &a->items[i], &b->items[i], changes);
  } else if (text_of(a) != text_of(b)) {
    changes.push_back({path, text_of(a), text_of(b)});
  }
}

bool of_the_model(const Change& change) {
  const std::string section = change.path.substr(0, change.path.find('.'));
  return section == "model" || section == "classifier" || section == "autoencoder";
}

/// Names of classes that nobody gave come from the data.
bool left_to_the_data(const Change& change) { return change.path.ends_with(".class_names") && change.would_be == "[]"; }

/// Whether the learning rate of the optimizer depends on how many steps there are.
bool decays(const Value& resolved) {
  const Value& decay = nearest(resolved, "train.optimizer.decay");
  return decay.is_scalar() && decay.scalar != "constant";
}

}  // namespace

std::string changes_since(const Value& stored, const Value& resolved, const Value& given) {
  std::vector<Change> changes;
  compare("", &stored, &resolved, changes);
  std::erase_if(changes, [](const Change& c) { return c.path.starts_with("plugins") || left_to_the_data(c); });
  std::vector<Problem> refused;
  std::string line;
  for (const Change& c : changes) {
    if (of_the_model(c))
      refused.push_back({nearest(given, c.path).place, "",
                         fmt::format("a training's model cannot be changed: {} is {} and would be {}", c.path, c.was, c.would_be)});
    line += fmt::format("{}{} {} -> {}", line.empty() ? "" : ", ", c.path, c.was, c.would_be);
    if (c.path == "train.steps" && decays(resolved)) line += " (the learning rate decays towards the new number)";
  }
  if (!refused.empty()) throw ConfigError(std::move(refused));
  return line;
}

}  // namespace brume
