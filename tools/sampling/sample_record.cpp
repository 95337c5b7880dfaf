#include "sampling/sample_record.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "brume/diffusion/decoding.h"
#include "brume/weights/safetensors.h"
#include "program/outputs.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr size_t strip_columns = 10;  ///< at most
constexpr int64_t strip_rows = 16;    ///< at most
const std::vector<std::string> animated{".png", ".apng"};

Tensor joined(const std::vector<std::vector<Tensor>>& parts, const std::vector<Tensor>& last = {}) {
  std::vector<Tensor> all;
  all.reserve(parts.size() + 1);
  for (const auto& p : parts) all.push_back(at::cat(p));
  if (!last.empty()) all.push_back(at::cat(last));
  return at::stack(all);
}

/// Returns the frames that a strip shows, from the first to the last.
std::vector<size_t> shown(size_t frames) {
  const size_t columns = std::min(strip_columns, frames);
  std::vector<size_t> numbers;
  for (size_t k = 0; k < columns; ++k) numbers.push_back(k * (frames - 1) / std::max<size_t>(1, columns - 1));
  return numbers;
}

}  // namespace

int64_t columns_of(int64_t asked, size_t count) { return asked > 0 ? asked : int64_t(std::ceil(std::sqrt(double(count)))); }

void check_record(const RecordArguments& asked) {
  if (!asked.frames.empty()) is_file("--frames", asked.frames, animated);
  if (!asked.strip.empty() && !is_file("--strip", asked.strip, {".png"}))
    throw ConfigError(fmt::format("--strip {}: is one picture, a file that ends in .png", asked.strip));
  check_file("--trajectory", asked.trajectory);
}

void Record::add(int64_t first, const Step& step) {
  const NoiseSchedule& schedule = *model_.options().noise;
  const size_t i = size_t(step.index);
  if (i >= x_.size()) x_.resize(i + 1), x0_.resize(i + 1);
  x_[i].push_back((step.x * schedule.signal(step.sigma)).cpu());
  x0_[i].push_back(step.x0.cpu());
  if (first == 0) sigma_.push_back(step.sigma), t_.push_back(schedule.time(step.sigma));
}

void Record::end(const Tensor& x) { end_.push_back(x.to(at::kFloat).cpu()); }

/// Returns what is shown of a step, of `most` images: x, if it is pixels; else what the estimates decode to, batch by batch.
std::vector<Image> Record::frame(size_t number, const Tensor& images, int64_t most) const {
  const at::NoGradGuard no_grad;
  const int64_t count = std::min(most, images.size(0));
  std::vector<Image> pictures;
  const auto add = [&](const Tensor& batch) {
    for (int64_t i = 0; i < batch.size(0) && int64_t(pictures.size()) < count; ++i) pictures.push_back(to_image(batch[i]));
  };
  if (number == steps()) {
    add(images);
    return pictures;
  }
  const ImageShape shape{images.size(1), images.size(2), images.size(3)};
  for (size_t b = 0; b < x_[number].size() && int64_t(pictures.size()) < count; ++b) {
    const int64_t rows = std::min(x0_[number][b].size(0), count - int64_t(pictures.size()));
    if (pixels(images))
      add(x_[number][b]);
    else
      add(decode_sampled(model_.autoencoder(), x0_[number][b].narrow(0, 0, rows).to(model_.compute().device), shape, asked_.tile)
              .to(at::kFloat)
              .cpu());
  }
  return pictures;
}

void Record::write_pictures(const Tensor& images) const {
  const size_t count = steps() + 1;
  const std::vector<size_t> strip = asked_.strip.empty() ? std::vector<size_t>{} : shown(count);
  std::vector<Image> frames;
  std::map<size_t, std::vector<Image>> columns;
  for (size_t k = 0; k < count; ++k) {
    const bool in_strip = std::find(strip.begin(), strip.end(), k) != strip.end();
    if (asked_.frames.empty() && !in_strip) continue;
    std::vector<Image> pictures = frame(k, images, asked_.frames.empty() ? strip_rows : images.size(0));
    if (!asked_.frames.empty())
      frames.push_back(pictures.size() == 1 ? pictures[0] : grid(pictures, columns_of(asked_.columns, pictures.size())));
    if (in_strip) pictures.resize(std::min(pictures.size(), size_t(strip_rows))), columns[k] = std::move(pictures);
  }
  if (!frames.empty() && is_file("--frames", asked_.frames, animated)) {
    make_parent(asked_.frames);
    write_apng(asked_.frames, frames, 100);
  } else if (!frames.empty()) {
    fs::create_directories(asked_.frames);
    for (size_t i = 0; i < frames.size(); ++i) write_png((fs::path(asked_.frames) / fmt::format("step_{:04}.png", i)).string(), frames[i]);
  }
  if (!frames.empty()) fmt::print("{}\n", asked_.frames);
  if (strip.empty()) return;
  std::vector<Image> rows;  // one per image, from noise to clean
  for (size_t image = 0; image < columns.begin()->second.size(); ++image)
    for (const size_t k : strip) rows.push_back(columns[k][image]);
  make_parent(asked_.strip);
  write_png(asked_.strip, grid(rows, int64_t(strip.size())));
  fmt::print("{}\n", asked_.strip);
}

void Record::write_trajectory(const Tensor& images) const {
  make_parent(asked_.trajectory);
  write_safetensors(asked_.trajectory, {{"x", joined(x_, pixels(images) ? std::vector<Tensor>{images} : end_)},
                                        {"x0", joined(x0_)},
                                        {"image", images},
                                        {"sigma", at::tensor(sigma_)},
                                        {"t", at::tensor(t_)}});
  fmt::print("{}\n", asked_.trajectory);
}

void Record::write(const Tensor& images) const {
  if (!asked_.frames.empty() || !asked_.strip.empty()) write_pictures(images);
  if (!asked_.trajectory.empty()) write_trajectory(images);
}

}  // namespace brume::tools
