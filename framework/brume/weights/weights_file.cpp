#include "brume/weights/weights_file.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <memory>

#include "brume/files/mapped_file.h"
#include "brume/files/refuse.h"
#include "brume/image/png.h"
#include "brume/weights/float8.h"
#include "brume/weights/gguf.h"
#include "brume/weights/gguf_blocks.h"
#include "brume/weights/network_pickle.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/safetensors_header.h"
#include "brume/weights/torch_file.h"

namespace brume {
namespace {

enum class Format { safetensors, torch, gguf, pickle, png, unknown };

/// Files that are met instead of weights, by their first bytes.
struct Magic {
  std::string_view bytes;
  std::string_view meaning;
};

using namespace std::string_view_literals;
constexpr std::array magics{
    Magic{"\x89PNG"sv, "a PNG image"},
    Magic{"\xff\xd8\xff"sv, "a JPEG image"},
    Magic{"\x89HDF"sv, "an HDF5 file"},
    Magic{"\x93NUMPY"sv, "a NumPy array"},
    Magic{"\x1f\x8b"sv, "gzip-compressed data: unpack it first"},
    Magic{"sys_info\0"sv, "a tar archive of PyTorch 0.1: load it with a newer PyTorch and save it again"},
    Magic{"<!DOCTYPE"sv, "a web page: the download failed, or needs a login"},
    Magic{"<html"sv, "a web page: the download failed, or needs a login"},
    Magic{"version https://git-lfs"sv, "a Git LFS pointer instead of the file: run 'git lfs pull'"},
};

bool is_safetensors(std::string_view bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof(length) + 1) return false;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return length <= 100'000'000 && bytes[sizeof(length)] == '{';
}

Format format_of(std::string_view bytes) {
  if (is_torch_file(bytes)) return Format::torch;
  if (is_png(bytes)) return Format::png;
  if (is_gguf(bytes)) return Format::gguf;
  if (is_safetensors(bytes)) return Format::safetensors;  // its length may begin as a pickle does
  return is_pickle(bytes) ? Format::pickle : Format::unknown;
}

[[noreturn]] void refuse_unknown(const MappedFile& file) {
  const auto bytes = file.bytes();
  if (bytes.empty()) refuse(file.path(), "is empty");
  std::string hexadecimal, letters;
  for (const char c : bytes.substr(0, 8)) {
    hexadecimal += fmt::format("{}{:02x}", hexadecimal.empty() ? "" : " ", static_cast<uint8_t>(c));
    letters += c >= 0x20 && c < 0x7f ? c : '.';
  }
  const auto known = std::find_if(magics.begin(), magics.end(), [bytes](const Magic& magic) { return bytes.starts_with(magic.bytes); });
  refuse(file.path(), fmt::format("is no weights file brume reads: it begins with {} ('{}'{}{}); readable are safetensors files, "
                                  "PyTorch files (.pt, .pth, .ckpt) and GGUF files",
                                  hexadecimal, letters, known == magics.end() ? "" : ", ", known == magics.end() ? "" : known->meaning));
}

/// Returns text, numbers and truth values that stand with the state dict.
std::map<std::string, std::string> plain_entries(const PickleValue& value) {
  std::map<std::string, std::string> entries;
  if (value.as_dict() == nullptr) return entries;
  for (const auto& [key, entry] : value.as_dict()->entries()) {
    const bool is_plain = entry.as_text() || entry.as_int() || entry.as_double() || entry.as_bool();
    if (key.as_text() == nullptr || !is_plain) continue;
    entries[*key.as_text()] = entry.as_text() != nullptr ? *entry.as_text() : entry.summary();
  }
  return entries;
}

/// Returns the safetensors name of a dtype, by which both formats list it.
std::string dtype_name(at::ScalarType type) {
  const auto* dtype = safetensors_dtype(type);
  return dtype != nullptr ? std::string(dtype->name) : c10::toString(type);
}

Listing list_safetensors(const std::shared_ptr<const MappedFile>& file) {
  const SafetensorsFile weights(file);
  Listing listing{file->path(), "safetensors", false, weights.metadata(), {}, {}};
  bool computable = true;
  for (const auto& entry : weights.entries()) {
    listing.rows.push_back({entry.name, entry.dtype, entry.shape, entry.bytes()});
    const auto* dtype = safetensors_dtype(entry.dtype);
    computable = computable && dtype != nullptr && (dtype->type != at::ScalarType::Undefined || is_float8(entry.dtype));
  }
  if (computable) listing.tensors = weights.tensors();
  return listing;
}

/// Returns the metadata and the state dict of what was saved.
NamedTensors read_torch(const std::shared_ptr<const MappedFile>& file, std::map<std::string, std::string>& metadata) {
  const auto value = load_torch_file(file);
  std::string place;
  auto tensors = state_dict(value, file->path(), &place);
  metadata = plain_entries(value);
  if (!place.empty() && place != "state_dict") metadata["state_dict"] = place;
  return tensors;
}

Listing list_torch(const std::shared_ptr<const MappedFile>& file) {
  Listing listing{file->path(), is_legacy_torch_file(file->bytes()) ? "legacy PyTorch file" : "PyTorch zip file", false, {}, {}, {}};
  listing.tensors = read_torch(file, listing.metadata);
  for (const auto& [name, tensor] : listing.tensors) {
    listing.rows.push_back({name, dtype_name(tensor.scalar_type()), tensor.sizes().vec(), tensor.nbytes()});
  }
  return listing;
}

Listing list_gguf(const std::shared_ptr<const MappedFile>& file) {
  const GgufFile weights(file);
  Listing listing{file->path(), "GGUF", false, weights.metadata(), {}, {}};
  bool computable = true;
  for (const GgufEntry& entry : weights.entries()) {
    listing.rows.push_back({entry.name, gguf_type_name(entry.type), entry.shape, entry.bytes});
    computable = computable && gguf_type(entry.type) != nullptr;
  }
  if (computable) listing.tensors = weights.tensors();
  return listing;
}

Listing list_pickle(const std::shared_ptr<const MappedFile>& file) {
  Listing listing{file->path(), "pickle of a network", false, {}, {}, {}};
  listing.tensors = load_network_pickle(file, listing.metadata);
  for (const auto& [name, tensor] : listing.tensors)
    listing.rows.push_back({name, dtype_name(tensor.scalar_type()), tensor.sizes().vec(), tensor.nbytes()});
  return listing;
}

Listing list_png(const MappedFile& file) {
  const PngHeader header = read_png_header(file.bytes(), file.path());
  Listing listing{file.path(), fmt::format("PNG image, {}x{} (width x height)", header.width, header.height), true, {}, {}, {}};
  for (const auto& [key, value] : png_text(file.bytes(), file.path())) listing.metadata[key] = value;
  return listing;
}

}  // namespace

NamedTensors load_tensors(const std::string& path, std::map<std::string, std::string>* metadata) {
  const auto file = MappedFile::open(path);
  switch (format_of(file->bytes())) {
    case Format::safetensors: {
      const SafetensorsFile weights(file);
      if (metadata != nullptr) *metadata = weights.metadata();
      return weights.tensors();
    }
    case Format::torch: {
      std::map<std::string, std::string> others;
      auto tensors = read_torch(file, others);
      if (metadata != nullptr) *metadata = std::move(others);
      return tensors;
    }
    case Format::gguf: {
      const GgufFile weights(file);
      if (metadata != nullptr) *metadata = weights.metadata();
      return weights.tensors();
    }
    case Format::pickle: {
      std::map<std::string, std::string> others;
      auto tensors = load_network_pickle(file, others);
      if (metadata != nullptr) *metadata = std::move(others);
      return tensors;
    }
    default: refuse_unknown(*file);
  }
}

uint64_t Listing::Row::parameters() const {
  uint64_t count = 1;
  for (const auto size : shape) count *= static_cast<uint64_t>(size);
  return count;
}

Listing list_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  switch (format_of(file->bytes())) {
    case Format::safetensors: return list_safetensors(file);
    case Format::torch: return list_torch(file);
    case Format::gguf: return list_gguf(file);
    case Format::pickle: return list_pickle(file);
    case Format::png: return list_png(*file);
    default: refuse_unknown(*file);
  }
}

}  // namespace brume
