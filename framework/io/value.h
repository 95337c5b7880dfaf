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

namespace brume::io {

class Value;
class Dict;

/// Several values in order.
using Sequence = std::vector<Value>;

/// A name that stands for something that is not data here: "torch.float32", "cuda:0", an integer too wide for int64.
class PickleName {
 public:
  explicit PickleName(std::string text) : text_(std::make_shared<const std::string>(std::move(text))) {}
  const std::string& text() const { return *text_; }

 private:
  std::shared_ptr<const std::string> text_;  ///< a file copies one many times
};

/// One value. Copies are cheap: lists, tuples, dicts and text are shared between copies, as they are in the file.
class Value final {
 public:
  struct Text {
    std::shared_ptr<const std::string> text;
  };
  struct Bytes {
    std::shared_ptr<const std::string> bytes;
  };
  struct List {
    std::shared_ptr<Sequence> items;
  };
  struct Tuple {
    std::shared_ptr<Sequence> items;
  };
  using Content =
      std::variant<std::monostate, bool, int64_t, double, Text, Bytes, PickleName, List, Tuple, std::shared_ptr<Dict>, at::Tensor>;

  Value() = default;  ///< None
  template <class T>
  explicit Value(T content) : content_(std::move(content)) {}
  static Value text(std::string_view text) { return Value(Text{std::make_shared<const std::string>(text)}); }
  static Value bytes(std::string_view bytes) { return Value(Bytes{std::make_shared<const std::string>(bytes)}); }
  static Value list(Sequence items = {}) { return Value(List{std::make_shared<Sequence>(std::move(items))}); }
  static Value tuple(Sequence items = {}) { return Value(Tuple{std::make_shared<Sequence>(std::move(items))}); }
  static Value dict();

  bool is_none() const { return std::holds_alternative<std::monostate>(content_); }
  // Each returns nullptr where the value is of another kind.
  const bool* as_bool() const { return std::get_if<bool>(&content_); }
  const int64_t* as_int() const { return std::get_if<int64_t>(&content_); }
  const double* as_double() const { return std::get_if<double>(&content_); }
  const std::string* as_text() const;
  const std::string* as_bytes() const;
  const PickleName* as_name() const { return std::get_if<PickleName>(&content_); }
  const Sequence* as_list() const;
  const Sequence* as_tuple() const;
  const Dict* as_dict() const;
  const at::Tensor* as_tensor() const { return std::get_if<at::Tensor>(&content_); }
  const Content& content() const { return content_; }

  std::string_view kind() const;                      ///< "none", "bool", "int", ..., "dict", "tensor"
  std::string summary(size_t max_length = 60) const;  ///< short and on one line: 3, text, a dict of 5, a tensor of [2, 3]

 private:
  Content content_;
};

/// A dict that keeps the order of insertion; a later entry with an equal text or integer key replaces the earlier one.
class Dict final {
 public:
  using Entry = std::pair<Value, Value>;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  const Value* find(std::string_view key) const;  ///< by text key; nullptr where absent
  void set(Value key, Value value);
  void clear();

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, size_t> texts_;  ///< text keys, owned by the entries, to their position
  std::unordered_map<int64_t, size_t> numbers_;         ///< integer keys
};

}  // namespace brume::io
