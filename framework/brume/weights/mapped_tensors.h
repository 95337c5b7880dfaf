#pragma once
// Tensors that view a mapped file: shared by the readers of weights files.
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace brume {

class MappedFile;

/// Returns the product of `shape` times `bits` per element, in bits; nullopt if it does not fit (hostile files).
std::optional<uint64_t> bits_of(const std::vector<int64_t>& shape, uint64_t bits);

/// Returns a contiguous tensor of `shape` at `offset` of the file, which it keeps alive: a view, or a copy if the offset is not a
/// multiple of the element size. The caller has checked that the bytes are there. Booleans other than 0 and 1 (undefined
/// behaviour once read as bool) are refused; `name` is for that message.
at::Tensor view_file(const std::shared_ptr<const MappedFile>& file, size_t offset, const std::vector<int64_t>& shape, at::ScalarType type,
                     const std::string& name);

/// Returns the same over a buffer in memory (a storage that was compressed in its file).
at::Tensor view_buffer(std::shared_ptr<std::vector<uint8_t>> buffer, const std::vector<int64_t>& shape, at::ScalarType type,
                       const std::string& path, const std::string& name);

}  // namespace brume
