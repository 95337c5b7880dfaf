#include "brume/weights/mapped_tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/format.h>

#include <cstring>

#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

void check_booleans(const uint8_t* data, size_t count, const std::string& path, const std::string& name) {
  for (size_t i = 0; i < count; ++i) {
    if (data[i] > 1) refuse(path, fmt::format("tensor '{}' is boolean, but element {} is {} (allowed: 0, 1)", name, i, data[i]));
  }
}

size_t count_of(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const auto size : shape) count *= static_cast<size_t>(size);
  return count;
}

/// Returns a view of memory. `owner` is whatever keeps the memory alive.
template <class Owner>
at::Tensor view(std::shared_ptr<Owner> owner, void* data, const std::vector<int64_t>& shape, at::ScalarType type) {
  const auto options = at::TensorOptions().dtype(type).device(at::kCPU);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(type) == 0) {
    return at::from_blob(
        data, shape, [owner = std::move(owner)](void*) {}, options);
  }
  auto copy = at::empty(shape, options);
  if (copy.nbytes() > 0) std::memcpy(copy.data_ptr(), data, copy.nbytes());
  return copy;
}

}  // namespace

std::optional<uint64_t> bits_of(const std::vector<int64_t>& shape, uint64_t bits) {
  for (const auto size : shape) {
    if (size == 0) return 0;  // whatever the other sizes, though their product may overflow
  }
  for (const auto size : shape) {
    if (size < 0 || __builtin_mul_overflow(bits, static_cast<uint64_t>(size), &bits)) return std::nullopt;
  }
  return bits;
}

at::Tensor view_file(const std::shared_ptr<const MappedFile>& file, size_t offset, const std::vector<int64_t>& shape, at::ScalarType type,
                     const std::string& name) {
  if (type == at::kBool) check_booleans(file->data() + offset, count_of(shape), file->path(), name);
  return view(file, file->at(offset), shape, type);
}

at::Tensor view_buffer(std::shared_ptr<std::vector<uint8_t>> buffer, const std::vector<int64_t>& shape, at::ScalarType type,
                       const std::string& path, const std::string& name) {
  if (type == at::kBool) check_booleans(buffer->data(), count_of(shape), path, name);
  void* data = buffer->data();
  return view(std::move(buffer), data, shape, type);
}

}  // namespace brume
