#include "brume/weights/gguf.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <unordered_set>

#include "brume/config/counted.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/weights/gguf_blocks.h"
#include "brume/weights/mapped_tensors.h"

namespace brume {
namespace {

constexpr std::string_view magic = "GGUF";
constexpr uint64_t most = 1'000'000;  ///< tensors, or pairs of metadata
constexpr uint32_t most_dimensions = 4, text_type = 8, array_type = 9;
/// Bytes of ggml's types of metadata, by their numbers; 0 for text and arrays.
constexpr std::array<uint64_t, 13> value_bytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/// Reads a file from its beginning on; every read is checked.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : file_(file) {}
  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }
  std::string_view take(uint64_t count) {
    if (count > left())
      refuse(file_.path(), fmt::format("is truncated: its header needs {} bytes at byte {}, {} are there", count, at_, left()));
    at_ += count;
    return file_.bytes(at_ - count, count);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string text() { return std::string(take(number<uint64_t>())); }

 private:
  const MappedFile& file_;
  uint64_t at_ = 0;
};

/// Returns a number or a truth value as text.
std::string scalar_text(Cursor& in, uint32_t type) {
  switch (type) {
    case 0: return fmt::format("{}", in.number<uint8_t>());
    case 1: return fmt::format("{}", in.number<int8_t>());
    case 2: return fmt::format("{}", in.number<uint16_t>());
    case 3: return fmt::format("{}", in.number<int16_t>());
    case 4: return fmt::format("{}", in.number<uint32_t>());
    case 5: return fmt::format("{}", in.number<int32_t>());
    case 6: return fmt::format("{}", in.number<float>());
    case 7: return in.number<uint8_t>() != 0 ? "true" : "false";
    case 10: return fmt::format("{}", in.number<uint64_t>());
    case 11: return fmt::format("{}", in.number<int64_t>());
    default: return fmt::format("{}", in.number<double>());
  }
}

/// Reads an array, and returns its numbers if they are whole and few, as those of a shape are.
std::vector<int64_t> read_array(Cursor& in, const std::string& key, const std::string& path) {
  const auto type = in.number<uint32_t>();
  const auto count = in.number<uint64_t>();
  if (type >= value_bytes.size() || type == array_type)
    refuse(path, fmt::format("metadata '{}' is an array of the unknown type {}", shortened(key), type));
  if (type == text_type) {
    for (uint64_t i = 0; i < count; ++i) in.text();
    return {};
  }
  std::vector<int64_t> numbers;
  constexpr uint32_t int32_type = 5, int64_type = 11;
  if (count <= most_dimensions && (type == int32_type || type == int64_type)) {
    for (uint64_t i = 0; i < count; ++i) numbers.push_back(type == int32_type ? in.number<int32_t>() : in.number<int64_t>());
    return numbers;
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(count, value_bytes[type], &bytes)) bytes = std::numeric_limits<uint64_t>::max();
  in.take(bytes);
  return {};
}

/// The key of the shape that a tensor had before it was written in rows of whole blocks (ComfyUI-GGUF), before the tensor's name.
constexpr std::string_view shape_key = "comfy.gguf.orig_shape.";

std::map<std::string, std::string> read_metadata(Cursor& in, uint64_t count, const std::string& path,
                                                 std::map<std::string, std::vector<int64_t>>& shapes) {
  std::map<std::string, std::string> all;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = in.text();
    const auto type = in.number<uint32_t>();
    if (type >= value_bytes.size()) refuse(path, fmt::format("metadata '{}' has the unknown type {}", shortened(key), type));
    if (type == array_type) {
      std::vector<int64_t> numbers = read_array(in, key, path);
      if (key.starts_with(shape_key)) shapes[key.substr(shape_key.size())] = std::move(numbers);
      continue;
    }
    all[key] = type == text_type ? in.text() : scalar_text(in, type);
  }
  return all;
}

/// Returns the bytes that a tensor of this type needs; the last dimension is made of whole blocks.
uint64_t bytes_of(const GgufEntry& entry, const std::string& path) {
  const GgufType* type = gguf_type(entry.type);
  if (!type) return 0;  // refused when asked for
  const uint64_t row = entry.shape.empty() ? 1 : uint64_t(entry.shape.back());
  if (row % type->weights != 0)
    refuse(path, fmt::format("tensor '{}' of type {} has rows of {}, no multiple of the {} of a block", shortened(entry.name), type->name,
                             counted(row, "weight"), type->weights));
  const auto bits = bits_of(entry.shape, 8 * type->bytes);
  if (!bits) refuse(path, fmt::format("tensor '{}' is larger than any file", shortened(entry.name)));
  return *bits / 8 / type->weights;
}

GgufEntry read_entry(Cursor& in, const std::string& path) {
  GgufEntry entry;
  entry.name = in.text();
  const auto dimensions = in.number<uint32_t>();
  if (dimensions > most_dimensions)
    refuse(path, fmt::format("tensor '{}' has {} (at most {})", shortened(entry.name), counted(dimensions, "dimension"), most_dimensions));
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = in.number<uint64_t>();
    if (size > uint64_t{1} << 40) refuse(path, fmt::format("tensor '{}' has a dimension of {}", shortened(entry.name), size));
    entry.shape.insert(entry.shape.begin(), int64_t(size));
  }
  entry.type = in.number<uint32_t>();
  entry.offset = in.number<uint64_t>();
  entry.bytes = bytes_of(entry, path);
  return entry;
}

/// Sets the shape that a tensor had in its model. Throws ConfigError if that is of another number of weights.
void set_shape(GgufEntry& entry, const std::vector<int64_t>& shape, const std::string& path) {
  int64_t have = 1, want = 1;
  for (const int64_t size : entry.shape) have *= size;  // bytes_of() has checked the product
  const bool sound =
      std::all_of(shape.begin(), shape.end(), [&](int64_t size) { return size > 0 && !__builtin_mul_overflow(want, size, &want); });
  if (!sound || want != have)
    refuse(path, fmt::format("tensor '{}' has {}, and its {}… is [{}]", shortened(entry.name), counted(have, "weight"), shape_key,
                             fmt::join(shape, ", ")));
  entry.shape = shape;
}

at::Tensor decoded(const MappedFile& file, const GgufEntry& entry, const GgufType& type) {
  const at::Tensor values = at::empty(entry.shape, at::TensorOptions().dtype(at::kFloat));
  const uint8_t* block = file.data() + entry.offset;
  float* out = values.numel() > 0 ? values.data_ptr<float>() : nullptr;
  for (int64_t i = 0; i < values.numel(); i += int64_t(type.weights), block += type.bytes) type.decode(block, out + i);
  return values;
}

}  // namespace

bool is_gguf(std::string_view bytes) { return bytes.starts_with(magic); }

std::string gguf_type_name(uint32_t type) {
  const GgufType* known = gguf_type(type);
  return known ? std::string(known->name) : fmt::format("type {}", type);
}

GgufFile::GgufFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
  const std::string& path = file_->path();
  Cursor in(*file_);
  in.take(magic.size());
  const auto version = in.number<uint32_t>();
  if (version != 2 && version != 3) refuse(path, fmt::format("is a GGUF file of version {}; 2 and 3 are read", version));
  const auto tensors = in.number<uint64_t>(), pairs = in.number<uint64_t>();
  if (tensors > most || pairs > most)
    refuse(path, fmt::format("would hold {} and {} of metadata", counted(tensors, "tensor"), counted(pairs, "pair")));
  std::map<std::string, std::vector<int64_t>> shapes;
  metadata_ = read_metadata(in, pairs, path, shapes);
  uint64_t alignment = 32;
  if (const auto written = metadata_.find("general.alignment"); written != metadata_.end()) {
    alignment = 0;
    for (uint64_t power = 1; power <= uint64_t{1} << 20; power *= 2)
      if (written->second == std::to_string(power)) alignment = power;
    if (alignment == 0) refuse(path, fmt::format("general.alignment is {}; a power of two is expected", shortened(written->second)));
  }
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < tensors; ++i) {
    entries_.push_back(read_entry(in, path));
    if (const auto own = shapes.find(entries_.back().name); own != shapes.end()) set_shape(entries_.back(), own->second, path);
    if (!names.insert(entries_.back().name).second) refuse(path, fmt::format("'{}' is there twice", shortened(entries_.back().name)));
  }
  const uint64_t begin = (in.at() + alignment - 1) / alignment * alignment;
  const uint64_t there = begin > file_->size() ? 0 : file_->size() - begin;
  for (GgufEntry& entry : entries_) {
    if (entry.offset > there || entry.bytes > there - entry.offset)
      refuse(path, fmt::format("is truncated: tensor '{}' needs {} bytes at byte {} of the data, which has {}", shortened(entry.name),
                               entry.bytes, entry.offset, there));
    entry.offset += begin;
  }
}

NamedTensors GgufFile::tensors() const {
  NamedTensors all;
  for (const GgufEntry& entry : entries_) {
    const GgufType* type = gguf_type(entry.type);
    if (!type)
      refuse(file_->path(), fmt::format("tensor '{}' has the type {} of ggml, which brume does not read (readable: {})",
                                        shortened(entry.name), entry.type, gguf_readable()));
    const at::ScalarType scalar = type->name == "F32" ? at::kFloat : type->name == "F16" ? at::kHalf : at::kBFloat16;
    all.push_back(
        {entry.name, type->decode ? decoded(*file_, entry, *type) : view_file(file_, entry.offset, entry.shape, scalar, entry.name)});
  }
  return all;
}

}  // namespace brume
