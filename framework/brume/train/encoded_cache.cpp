#include "brume/train/encoded_cache.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <optional>
#include <utility>
#include <vector>

#include "brume/config/errors.h"
#include "brume/core/boundary.h"
#include "brume/diffusion/fingerprint.h"
#include "brume/files/sha256.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Returns the tensors of a file; nothing if it is missing or cannot be read.
std::optional<NamedTensors> read(const std::string& file) {
  if (!fs::is_regular_file(file)) return {};
  try {
    return load_tensors(file);
  } catch (const ConfigError&) {
    return {};  // damaged: written again
  }
}

void write(const std::string& file, const NamedTensors& tensors) {
  fs::create_directories(fs::path(file).parent_path());
  write_safetensors(file, tensors, {});
}

std::string bytes_of(const Tensor& row) {
  std::string bytes = fmt::format("{}", row.dim());
  for (const int64_t side : row.sizes()) bytes += fmt::format(" {}", side);
  return bytes.append(1, '\n').append(static_cast<const char*>(row.data_ptr()), size_t(row.numel() * row.element_size()));
}

}  // namespace

EncodedCache::EncodedCache(fs::path folder, const Pipeline& pipeline, const std::string& first_stage)
    : folder_(std::move(folder)), pipeline_(pipeline), type_(first_stage) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", folder_.string(), error.message()));
}

void EncodedCache::open() {
  if (std::exchange(opened_, true)) return;
  const char* dtype = toString(pipeline_.compute().dtype);
  if (!pipeline_.autoencoder().weights().empty()) first_stage_ = fmt::format("{}-{}", fingerprint(pipeline_.autoencoder(), type_), dtype);
  conditioner_ = fmt::format("{}-{}", fingerprint("captions", pipeline_.encoder().weights(), pipeline_.encoder().files()), dtype);
}

std::string EncodedCache::file_of(const std::string& part, const std::string& content) const {
  const std::string hash = sha256(content);
  return (folder_ / part / hash.substr(0, 2) / (hash + ".safetensors")).string();
}

Tensor EncodedCache::moments(const Tensor& images) {
  open();
  if (first_stage_.empty()) return {};
  const at::NoGradGuard no_grad;
  const Autoencoder& first_stage = pipeline_.autoencoder();
  const ImageShape wanted = first_stage.moments({images.size(1), images.size(2), images.size(3)});
  std::vector<Tensor> rows;
  std::vector<std::string> files;
  std::vector<int64_t> missing;
  const Tensor dense = images.contiguous();
  for (int64_t i = 0; i < dense.size(0); ++i) {
    files.push_back(file_of(first_stage_, bytes_of(dense[i])));
    const auto found = read(files.back());
    const Tensor* kept = found ? find(*found, "moments") : nullptr;
    const bool fits = kept && kept->sizes() == at::IntArrayRef({1, wanted.channels, wanted.height, wanted.width});
    rows.push_back(fits ? kept->clone() : Tensor());
    if (!fits) missing.push_back(i);
  }
  account_.images += int64_t(rows.size());
  account_.images_encoded += int64_t(missing.size());
  if (!missing.empty()) {
    const Tensor lacking = dense.index_select(0, at::tensor(missing)).to(pipeline_.compute().device);
    const Tensor encoded = checked_moments(first_stage, lacking).cpu();
    for (size_t i = 0; i < missing.size(); ++i) {
      Tensor& row = rows[size_t(missing[i])];
      row = encoded.narrow(0, int64_t(i), 1).contiguous();
      write(files[size_t(missing[i])], {{"moments", row}});
    }
  }
  return at::cat(rows);
}

nn::EncodedCaptions EncodedCache::get(int64_t encoder, const std::string& caption, const std::function<nn::EncodedCaptions()>& encode) {
  open();
  const std::string file = file_of(conditioner_, fmt::format("{}\n{}", encoder, caption));
  nn::EncodedCaptions row;
  const std::pair<const char*, Tensor*> parts[] = {
      {"context", &row.context}, {"mask", &row.mask}, {"filler", &row.filler}, {"vector", &row.vector}};
  ++account_.captions;
  if (const auto found = read(file); found && find(*found, "context")) {
    for (const auto& [name, part] : parts)
      if (const Tensor* kept = find(*found, name)) *part = kept->clone().to(pipeline_.compute().device);
    return row;
  }
  ++account_.captions_encoded;
  row = encode();
  NamedTensors tensors;
  for (const auto& [name, part] : parts)
    if (part->defined()) tensors.push_back({name, part->cpu().contiguous()});
  write(file, tensors);
  return row;
}

}  // namespace brume
