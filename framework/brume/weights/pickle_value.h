#pragma once
// What a pickle holds once read: plain data and tensors, never code.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace brume {

class PickleValue;
class PickleDict;

/// Several values in order.
using Sequence = std::vector<PickleValue>;

/// A name that stands for something that is not data here: "torch.float32", "cuda:0", an integer too wide for int64.
class PickleName {
 public:
  explicit PickleName(std::string text) : text_(std::make_shared<const std::string>(std::move(text))) {}
  const std::string& text() const { return *text_; }

 private:
  std::shared_ptr<const std::string> text_;  ///< a file copies one many times
};

/// One value. Copies are cheap: lists, tuples, dicts and text are shared between copies, as they are in the file.
class PickleValue final {
 public:
  struct PickleText {
    std::shared_ptr<const std::string> text;
  };
  struct PickleBytes {
    std::shared_ptr<const std::string> bytes;
  };
  struct PickleList {
    std::shared_ptr<Sequence> items;
  };
  struct PickleTuple {
    std::shared_ptr<Sequence> items;
  };
  using Content = std::variant<std::monostate, bool, int64_t, double, PickleText, PickleBytes, PickleName, PickleList, PickleTuple,
                               std::shared_ptr<PickleDict>, at::Tensor>;

  PickleValue() = default;  ///< None
  template <class T>
  explicit PickleValue(T content) : content_(std::move(content)) {}
  static PickleValue text(std::string_view text) { return PickleValue(PickleText{std::make_shared<const std::string>(text)}); }
  static PickleValue bytes(std::string_view bytes) { return PickleValue(PickleBytes{std::make_shared<const std::string>(bytes)}); }
  static PickleValue list(Sequence items = {}) { return PickleValue(PickleList{std::make_shared<Sequence>(std::move(items))}); }
  static PickleValue tuple(Sequence items = {}) { return PickleValue(PickleTuple{std::make_shared<Sequence>(std::move(items))}); }
  static PickleValue dict();

  bool is_none() const { return std::holds_alternative<std::monostate>(content_); }
  // Each returns nullptr if the value is of another kind.
  const bool* as_bool() const { return std::get_if<bool>(&content_); }
  const int64_t* as_int() const { return std::get_if<int64_t>(&content_); }
  const double* as_double() const { return std::get_if<double>(&content_); }
  const std::string* as_text() const;
  const std::string* as_bytes() const;
  const PickleName* as_name() const { return std::get_if<PickleName>(&content_); }
  const Sequence* as_list() const;
  const Sequence* as_tuple() const;
  const PickleDict* as_dict() const;
  const at::Tensor* as_tensor() const { return std::get_if<at::Tensor>(&content_); }
  const Content& content() const { return content_; }

  std::string_view kind() const;                      ///< "none", "bool", "int", ..., "dict", "tensor"
  std::string summary(size_t max_length = 60) const;  ///< short and on one line: 3, text, a dict of 5, a tensor of [2, 3]

 private:
  Content content_;
};

/// A dict that keeps the order of insertion; a later entry with an equal text or integer key replaces the earlier one.
class PickleDict final {
 public:
  using Entry = std::pair<PickleValue, PickleValue>;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  const PickleValue* find(std::string_view key) const;  ///< by text key; nullptr if absent
  void set(PickleValue key, PickleValue value);
  void clear();

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, size_t> texts_;  ///< text keys, owned by the entries, to their position
  std::unordered_map<int64_t, size_t> numbers_;         ///< integer keys
};

}  // namespace brume
