#include "io/model_file.h"

#include <c10/core/ScalarType.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <memory>

#include "io/mapped_file.h"
#include "io/png.h"
#include "io/refuse.h"
#include "io/safetensors.h"
#include "io/safetensors_header.h"
#include "io/torch_file.h"

namespace brume::io {
namespace {

enum class Format { safetensors, torch, png, unknown };

/// Files that are met in the place of weights, by what they begin with.
struct Magic {
  std::string_view bytes;
  std::string_view meaning;
};

using namespace std::string_view_literals;
constexpr std::array magics{
    Magic{"\x89PNG"sv, "a PNG image"},
    Magic{"\xff\xd8\xff"sv, "a JPEG image"},
    Magic{"GGUF"sv, "a GGUF model"},
    Magic{"\x89HDF"sv, "an HDF5 file"},
    Magic{"\x93NUMPY"sv, "a NumPy array"},
    Magic{"\x1f\x8b"sv, "gzip-compressed data: unpack it first"},
    Magic{"\x80\x04"sv, "a bare Python pickle"},
    Magic{"\x80\x02"sv, "a bare Python pickle"},
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
  return is_safetensors(bytes) ? Format::safetensors : Format::unknown;
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
  refuse(file.path(), fmt::format("is no weights file brume reads: it begins with {} ('{}'{}{}); readable are safetensors files and "
                                  "PyTorch zip files (.pt, .pth, .ckpt)",
                                  hexadecimal, letters, known == magics.end() ? "" : ", ", known == magics.end() ? "" : known->meaning));
}

/// Text, numbers and truth values that stand beside the state dict.
std::map<std::string, std::string> plain_entries(const Value& value) {
  std::map<std::string, std::string> entries;
  if (value.as_dict() == nullptr) return entries;
  for (const auto& [key, entry] : value.as_dict()->entries()) {
    const bool is_plain = entry.as_text() || entry.as_int() || entry.as_double() || entry.as_bool();
    if (key.as_text() == nullptr || !is_plain) continue;
    entries[*key.as_text()] = entry.as_text() != nullptr ? *entry.as_text() : entry.summary();
  }
  return entries;
}

/// One row of a listing; dtypes as the file calls them, so that what cannot be computed with is listed all the same.
struct Row {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t bytes;
};

uint64_t parameters_of(const Row& row) {
  uint64_t count = 1;
  for (const auto size : row.shape) count *= static_cast<uint64_t>(size);
  return count;
}

std::string listing(const std::string& path, std::string_view format, const std::map<std::string, std::string>& metadata,
                    const std::vector<Row>& rows) {
  constexpr size_t max_name = 100, max_text = 100;
  std::string text = fmt::format("{}: {}\n", path, format);
  for (const auto& [key, value] : metadata) {
    text += fmt::format("  {} = {}\n", shortened(key, max_name), shortened(value, max_text));
  }
  size_t width = 0;
  for (const auto& row : rows) width = std::max(width, std::min(row.name.size(), max_name));
  uint64_t parameters = 0, bytes = 0;
  for (const auto& row : rows) {
    const auto shape = fmt::format("[{}]", fmt::join(row.shape, ", "));
    text += fmt::format("  {:<{}}  {:<8} {:<20} {:>12} bytes\n", shortened(row.name, max_name), width, row.dtype, shape, row.bytes);
    parameters += parameters_of(row);
    bytes += row.bytes;
  }
  return text + fmt::format("{} tensors, {} parameters, {} bytes\n", rows.size(), parameters, bytes);
}

/// Both formats list dtypes by their safetensors names.
std::string dtype_name(at::ScalarType type) {
  const auto* dtype = safetensors_dtype(type);
  return dtype != nullptr ? std::string(dtype->name) : c10::toString(type);
}

std::string inspect_safetensors(const std::shared_ptr<const MappedFile>& file) {
  const SafetensorsFile weights(file);
  std::vector<Row> rows;
  for (const auto& entry : weights.entries()) rows.push_back({entry.name, entry.dtype, entry.shape, entry.bytes()});
  return listing(file->path(), "safetensors", weights.metadata(), rows);
}

std::string inspect_torch(const std::shared_ptr<const MappedFile>& file) {
  const auto value = load_torch_file(file);
  std::vector<Row> rows;
  for (const auto& [name, tensor] : state_dict(value, file->path())) {
    rows.push_back({name, dtype_name(tensor.scalar_type()), tensor.sizes().vec(), tensor.nbytes()});
  }
  return listing(file->path(), "PyTorch zip file", plain_entries(value), rows);
}

std::string inspect_png(const MappedFile& file) {
  const auto [height, width] = png_size(file.bytes(), file.path());
  std::string text = fmt::format("{}: PNG image, {}x{} (width x height)\n", file.path(), width, height);
  for (const auto& [key, value] : png_text(file.bytes(), file.path())) {
    text += fmt::format("  {} = {}\n", shortened(key, 79), shortened(value, 1000));
  }
  return text;
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
      const auto value = load_torch_file(file);
      if (metadata != nullptr) *metadata = plain_entries(value);
      return state_dict(value, path);
    }
    default: refuse_unknown(*file);
  }
}

std::string inspect(const std::string& path) {
  const auto file = MappedFile::open(path);
  switch (format_of(file->bytes())) {
    case Format::safetensors: return inspect_safetensors(file);
    case Format::torch: return inspect_torch(file);
    case Format::png: return inspect_png(*file);
    default: refuse_unknown(*file);
  }
}

}  // namespace brume::io
