#include "brume/weights/pickle_value.h"

#include <fmt/format.h>

#include <array>

#include "brume/files/refuse.h"

namespace brume {

PickleValue PickleValue::dict() { return PickleValue(std::make_shared<PickleDict>()); }

const std::string* PickleValue::as_text() const {
  const auto* text = std::get_if<PickleText>(&content_);
  return text == nullptr ? nullptr : text->text.get();
}

const std::string* PickleValue::as_bytes() const {
  const auto* bytes = std::get_if<PickleBytes>(&content_);
  return bytes == nullptr ? nullptr : bytes->bytes.get();
}

const Sequence* PickleValue::as_list() const {
  const auto* list = std::get_if<PickleList>(&content_);
  return list == nullptr ? nullptr : list->items.get();
}

const Sequence* PickleValue::as_tuple() const {
  const auto* tuple = std::get_if<PickleTuple>(&content_);
  return tuple == nullptr ? nullptr : tuple->items.get();
}

const PickleDict* PickleValue::as_dict() const {
  const auto* dict = std::get_if<std::shared_ptr<PickleDict>>(&content_);
  return dict == nullptr ? nullptr : dict->get();
}

std::string_view PickleValue::kind() const {
  constexpr std::array<std::string_view, std::variant_size_v<Content>> names{"none", "bool", "int",   "float", "text",  "bytes",
                                                                             "name", "list", "tuple", "dict",  "tensor"};
  return names[content_.index()];
}

std::string PickleValue::summary(size_t max_length) const {
  if (is_none()) return "none";
  if (const auto* value = as_bool()) return *value ? "true" : "false";
  if (const auto* value = as_int()) return fmt::format("{}", *value);
  if (const auto* value = as_double()) return fmt::format("{}", *value);
  if (const auto* value = as_text()) return shortened(*value, max_length);
  if (const auto* value = as_name()) return shortened(value->text(), max_length);
  if (const auto* value = as_bytes()) return fmt::format("{} bytes", value->size());
  if (const auto* value = as_tensor()) return fmt::format("a tensor of [{}]", fmt::join(value->sizes(), ", "));
  const size_t count = as_list() ? as_list()->size() : as_tuple() ? as_tuple()->size() : as_dict()->size();
  return fmt::format("a {} of {}", kind(), count);
}

const PickleValue* PickleDict::find(std::string_view key) const {
  const auto found = texts_.find(key);
  return found == texts_.end() ? nullptr : &entries_[found->second].second;
}

void PickleDict::set(PickleValue key, PickleValue value) {
  const auto position = entries_.size();
  if (const auto* text = key.as_text()) {
    const auto [found, is_new] = texts_.try_emplace(*text, position);
    if (!is_new) return void(entries_[found->second].second = std::move(value));
  } else if (const auto* number = key.as_int()) {
    const auto [found, is_new] = numbers_.try_emplace(*number, position);
    if (!is_new) return void(entries_[found->second].second = std::move(value));
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

void PickleDict::clear() {
  texts_.clear();
  numbers_.clear();
  entries_.clear();
}

}  // namespace brume
