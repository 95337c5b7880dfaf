#include "brume/weights/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "brume/core/formed_weights.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/weights/float8.h"
#include "brume/weights/mapped_tensors.h"
#include "brume/weights/safetensors_header.h"

namespace brume {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian and are used in place");

constexpr uint64_t length_bytes = 8;
constexpr uint64_t max_header = 100'000'000;  // of the reference implementation

/// Returns the JSON text, its length checked against the file.
std::string_view header_text(const MappedFile& file) {
  if (file.size() < length_bytes) {
    refuse(file.path(), fmt::format("is truncated: a safetensors file begins with 8 bytes of header length, {} are there", file.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), length_bytes);
  if (length > max_header) {
    refuse(file.path(), fmt::format("is no safetensors file: its header would have {} bytes (at most {})", length, max_header));
  }
  const uint64_t there = file.size() - length_bytes;
  if (length > there) {
    refuse(file.path(), fmt::format("is truncated: its header has {} bytes, {} are there; missing bytes before the first tensor: {}",
                                    length, there, length - there));
  }
  const auto text = file.bytes(length_bytes, length);
  if (text.empty() || text.front() != '{') refuse(file.path(), "is no safetensors file: its header does not begin with '{'");
  return text;
}

/// Throws ConfigError if a tensor does not have the bytes that its dtype and shape need.
void check_size(const SafetensorsEntry& entry, const std::string& path) {
  const auto* dtype = safetensors_dtype(entry.dtype);
  if (dtype == nullptr) return;  // newer than us: of unknown size, refused when asked for
  const auto bits = bits_of(entry.shape, dtype->bits);
  if (bits && *bits % 8 == 0 && *bits / 8 == entry.bytes()) return;
  refuse(path, fmt::format("tensor '{}' of dtype {} and shape [{}] needs {} bytes, but has {}", entry.name, entry.dtype,
                           fmt::join(entry.shape, ", "), bits ? fmt::format("{}", (*bits + 7) / 8) : "more than 2^61", entry.bytes()));
}

/// Returns the end of the last tensor. Throws ConfigError if they do not cover the data without a gap or an overlap.
uint64_t check_layout(const std::vector<SafetensorsEntry>& entries, const std::string& path) {
  std::vector<const SafetensorsEntry*> by_offset;
  by_offset.reserve(entries.size());
  for (const auto& entry : entries) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const auto* a, const auto* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  uint64_t end = 0;
  for (const auto* entry : by_offset) {
    if (entry->begin != end) {
      refuse(path, fmt::format("tensor '{}' begins at byte {} of the data, but the one before it ends at {} ({})", entry->name,
                               entry->begin, end, entry->begin < end ? "an overlap" : "a hole"));
    }
    check_size(*entry, path);
    end = entry->end;
  }
  return end;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::string& path) : SafetensorsFile(MappedFile::open(path)) {}

SafetensorsFile::SafetensorsFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
  const auto text = header_text(*file_);
  auto header = parse_safetensors_header(text, file_->path());
  entries_ = std::move(header.entries);
  metadata_ = std::move(header.metadata);
  data_begin_ = length_bytes + text.size();
  const uint64_t needed = check_layout(entries_, file_->path());
  const uint64_t there = file_->size() - data_begin_;
  if (needed > there) {
    refuse(file_->path(),
           fmt::format("is truncated: its tensors have {} bytes, {} are there; missing bytes: {}", needed, there, needed - there));
  }
  if (needed < there) refuse(file_->path(), fmt::format("has {} bytes after its last tensor, which belong to nothing", there - needed));
  for (size_t i = 0; i < entries_.size(); ++i) index_[entries_[i].name] = i;
}

const std::string& SafetensorsFile::path() const { return file_->path(); }

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &entries_[found->second];
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const auto* entry = find(name);
  if (entry == nullptr) refuse(path(), fmt::format("has no tensor '{}'", name));
  return tensor(*entry);
}

at::Tensor SafetensorsFile::tensor(const SafetensorsEntry& entry) const {
  if (is_float8(entry.dtype)) return from_float8(file_->data() + data_begin_ + entry.begin, entry.shape, entry.dtype);
  const auto* dtype = safetensors_dtype(entry.dtype);
  if (dtype == nullptr || dtype->type == at::ScalarType::Undefined) {
    refuse(path(), fmt::format("tensor '{}' has dtype {}, which brume does not compute with "
                               "(readable: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U8, BOOL)",
                               entry.name, entry.dtype));
  }
  return view_file(file_, data_begin_ + entry.begin, entry.shape, dtype->type, entry.name);
}

NamedTensors SafetensorsFile::tensors() const {
  NamedTensors all;
  all.reserve(entries_.size());
  std::vector<std::string> narrow;
  for (const auto& entry : entries_) {
    all.push_back({entry.name, tensor(entry)});
    if (is_float8(entry.dtype)) narrow.push_back(entry.name);
  }
  apply_float8_scales(all, narrow, path());
  return all;
}

namespace {

SafetensorsEntry entry_of(const NamedTensor& named, const std::string& path) {
  const auto& [name, tensor] = named;
  if (!tensor.defined()) refuse(path, fmt::format("cannot be written: tensor '{}' is undefined", name));
  const auto* dtype = safetensors_dtype(tensor.scalar_type());
  if (dtype == nullptr || tensor.layout() != at::kStrided || tensor.device().is_meta()) {
    refuse(path, fmt::format("cannot be written: safetensors files hold no tensors like '{}' ({}, {})", name,
                             c10::toString(tensor.scalar_type()), tensor.device().str()));
  }
  return {name, std::string(dtype->name), tensor.sizes().vec(), 0, static_cast<uint64_t>(tensor.numel()) * (dtype->bits / 8)};
}

/// Indices of the entries by element size, the largest first: each tensor then begins at a multiple of its element size.
std::vector<size_t> aligned_order(const std::vector<SafetensorsEntry>& entries) {
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&entries](size_t a, size_t b) {
    return safetensors_dtype(entries[a].dtype)->bits > safetensors_dtype(entries[b].dtype)->bits;
  });
  return order;
}

}  // namespace

void write_safetensors(const std::string& path, const NamedTensors& tensors, const std::map<std::string, std::string>& metadata) {
  SafetensorsHeader header{{}, metadata};
  for (const auto& named : tensors) header.entries.push_back(entry_of(named, path));
  const auto order = aligned_order(header.entries);
  uint64_t end = 0;
  for (const size_t i : order) {
    auto& entry = header.entries[i];
    entry.end += end;
    entry.begin = std::exchange(end, entry.end);
  }
  auto text = format_safetensors_header(header, path);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  if (length > max_header) refuse(path, fmt::format("cannot be written: its header has {} bytes (at most {})", length, max_header));

  AtomicFile file(path, length_bytes + length + end);
  file.write(&length, length_bytes);
  file.write(text);
  for (const size_t i : order) {  // one contiguous copy at a time: a model may be as large as the memory
    const auto tensor = FormedWeights::of(tensors[i].tensor).detach().cpu().resolve_neg().contiguous();
    file.write(tensor.data_ptr(), tensor.nbytes());
  }
  file.commit();
}

}  // namespace brume
