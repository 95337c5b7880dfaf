#include "brume/weights/safetensors_header.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "brume/files/refuse.h"

namespace brume {
namespace {

using nlohmann::json;

constexpr std::string_view metadata_key = "__metadata__";
constexpr auto none = at::ScalarType::Undefined;
// The names of the reference implementation (safetensors/src/tensor.rs). LibTorch 1.13 knows fewer types than the format.
constexpr std::array dtypes{
    SafetensorsDtype{"F64", 64, at::kDouble}, SafetensorsDtype{"F32", 32, at::kFloat},
    SafetensorsDtype{"F16", 16, at::kHalf},   SafetensorsDtype{"BF16", 16, at::kBFloat16},
    SafetensorsDtype{"I64", 64, at::kLong},   SafetensorsDtype{"I32", 32, at::kInt},
    SafetensorsDtype{"I16", 16, at::kShort},  SafetensorsDtype{"I8", 8, at::kChar},
    SafetensorsDtype{"U8", 8, at::kByte},     SafetensorsDtype{"BOOL", 8, at::kBool},
    SafetensorsDtype{"U64", 64, none},        SafetensorsDtype{"U32", 32, none},
    SafetensorsDtype{"U16", 16, none},        SafetensorsDtype{"C64", 64, none},
    SafetensorsDtype{"F8_E5M2", 8, none},     SafetensorsDtype{"F8_E4M3", 8, none},
    SafetensorsDtype{"F8_E5M2FNUZ", 8, none}, SafetensorsDtype{"F8_E4M3FNUZ", 8, none},
    SafetensorsDtype{"F8_E8M0", 8, none},     SafetensorsDtype{"F6_E2M3", 6, none},
    SafetensorsDtype{"F6_E3M2", 6, none},     SafetensorsDtype{"F4", 4, none},
};

/// Receives the header event by event instead of as a tree: a tree would keep only one of two equal keys, and a header may have
/// 100 MB. Depth 1 is the header, depth 2 a tensor or the metadata.
class HeaderEvents final : public nlohmann::json_sax<json> {
 public:
  explicit HeaderEvents(const std::string& path) : path_(path) {}
  SafetensorsHeader header;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override { return unexpected("the number " + text); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (array_ == nullptr || value > uint64_t{INT64_MAX}) return unexpected(fmt::format("the number {}", value));
    array_->push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& text) override {
    if (depth_ == 2 && in_metadata_) {
      header.metadata[key_] = text;
    } else if (depth_ == 2 && array_ == nullptr && key_ == "dtype") {
      header.entries.back().dtype = text;
    } else {
      return unexpected(fmt::format("the text '{}'", text));
    }
    return true;
  }

  bool start_object(size_t) override {
    if (depth_ >= 2 || array_ != nullptr) return unexpected("an object");
    if (++depth_ == 1) return true;
    keys_.clear();
    offsets_.clear();
    in_metadata_ = key_ == metadata_key;
    name_ = key_;
    if (!in_metadata_) header.entries.push_back({name_, "", {}, 0, 0});
    return true;
  }

  bool key(string_t& text) override {
    const bool is_new = (depth_ == 1 ? names_ : keys_).insert(text).second;
    if (!is_new) invalid(depth_ == 1 ? fmt::format("'{}' is there twice", text) : fmt::format("'{}' has '{}' twice", name_, text));
    if (depth_ == 2 && !in_metadata_ && text != "dtype" && text != "shape" && text != "data_offsets") {
      invalid(fmt::format("tensor '{}' has an unknown entry '{}' (allowed: dtype, shape, data_offsets)", name_, text));
    }
    key_ = text;
    return true;
  }

  bool end_object() override {
    if (depth_-- == 1 || in_metadata_) return true;
    for (const char* required : {"dtype", "shape", "data_offsets"}) {
      if (!keys_.contains(required)) invalid(fmt::format("tensor '{}' has no '{}'", name_, required));
    }
    if (offsets_.size() != 2) invalid(fmt::format("tensor '{}' has {} data_offsets instead of 2", name_, offsets_.size()));
    auto& entry = header.entries.back();
    entry.begin = static_cast<uint64_t>(offsets_[0]);
    entry.end = static_cast<uint64_t>(offsets_[1]);
    if (entry.begin > entry.end) invalid(fmt::format("tensor '{}' ends before it begins ({} < {})", name_, entry.end, entry.begin));
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || array_ != nullptr || key_ == "dtype") return unexpected("a list");
    array_ = key_ == "shape" ? &header.entries.back().shape : &offsets_;
    return true;
  }

  bool end_array() override {
    array_ = nullptr;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    invalid(fmt::format("not JSON at byte {}", position));
  }

 private:
  [[noreturn]] void invalid(const std::string& reason) const { refuse(path_, "its safetensors header is invalid: " + reason); }

  [[noreturn]] bool unexpected(const std::string& found) const {
    if (depth_ == 0) invalid(fmt::format("an object is expected, {} found", found));
    if (depth_ == 1) invalid(fmt::format("'{}' is {} instead of an object", key_, found));
    if (in_metadata_) invalid(fmt::format("metadata '{}' is {} instead of text", key_, found));
    invalid(fmt::format("'{}' of tensor '{}' is or holds {}", key_, name_, found));
  }

  const std::string& path_;
  int depth_ = 0;
  bool in_metadata_ = false;
  std::string name_;                       ///< of the tensor being read
  std::string key_;                        ///< read last
  std::vector<int64_t>* array_ = nullptr;  ///< being read
  std::vector<int64_t> offsets_;
  std::unordered_set<std::string> names_;  ///< at depth 1
  std::unordered_set<std::string> keys_;   ///< at depth 2
};

std::string quoted(const std::string& text, const std::string& path) {
  try {
    return json(text).dump();
  } catch (const json::exception&) {
    refuse(path, fmt::format("cannot be written: the name or metadata '{}' is not UTF-8", text));
  }
}

}  // namespace

const SafetensorsDtype* safetensors_dtype(std::string_view name) {
  for (const auto& dtype : dtypes) {
    if (dtype.name == name) return &dtype;
  }
  return nullptr;
}

const SafetensorsDtype* safetensors_dtype(at::ScalarType type) {
  for (const auto& dtype : dtypes) {
    if (dtype.type == type && type != none) return &dtype;
  }
  return nullptr;
}

SafetensorsHeader parse_safetensors_header(std::string_view text, const std::string& path) {
  HeaderEvents events(path);
  json::sax_parse(text.begin(), text.end(), &events);
  return std::move(events.header);
}

std::string format_safetensors_header(const SafetensorsHeader& header, const std::string& path) {
  std::string text = "{";
  const auto separate = [&text] { text += text.size() > 1 ? "," : ""; };
  if (!header.metadata.empty()) {
    text += fmt::format("\"{}\":{{", metadata_key);
    bool first = true;
    for (const auto& [key, value] : header.metadata) {
      text += fmt::format("{}{}:{}", first ? "" : ",", quoted(key, path), quoted(value, path));
      first = false;
    }
    text += "}";
  }
  std::unordered_set<std::string> names{std::string(metadata_key)};
  for (const auto& entry : header.entries) {
    if (!names.insert(entry.name).second) refuse(path, fmt::format("cannot be written: two tensors are called '{}'", entry.name));
    separate();
    text += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", quoted(entry.name, path), entry.dtype,
                        fmt::join(entry.shape, ","), entry.begin, entry.end);
  }
  return text + "}";
}

}  // namespace brume
