#include "brume/train/alignment.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/suggest.h"
#include "brume/core/boundary.h"
#include "brume/diffusion/model_files.h"
#include "brume/nn/ops/ops.h"
#include "brume/numerics/companion_network.h"

namespace brume {
namespace {

[[noreturn]] void fail(const char* key, const std::string& message) {
  throw ConfigError(message).located({}, std::string("train.align") + key);
}

std::shared_ptr<const Features> opened(const AlignmentOptions& o, const Compute& compute, const ModelSource& models) {
  const auto classifier = [&](const std::string& path) {
    const auto* files = dynamic_cast<const ModelFiles*>(&models);
    if (!files) throw ConfigError(fmt::format("{}: no models can be opened here", path));
    return files->classifier_features(path);
  };
  return o.features.make({classifier, compute.device, compute.dtype});
}

/// Returns the name of the block, checked.
std::string block_of(const AlignmentOptions& o, const Network& network) {
  const std::vector<std::string> blocks = network.tap_points().blocks;
  if (blocks.empty()) fail("", "the network names no blocks, whose output could be aligned; dit and unet do");
  if (o.block.empty()) return blocks[std::max<size_t>(blocks.size() / 3, 1) - 1];
  if (std::find(blocks.begin(), blocks.end(), o.block) == blocks.end())
    fail(".block", fmt::format("the network has no block '{}'{}", o.block, hint(o.block, blocks)));
  return o.block;
}

/// Calls the network once.
class OneCall final : public Objective {
 public:
  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, Training&, at::Generator&) const override {
    return model.network(x0, std::vector<double>(size_t(x0.size(0)), 1.0), condition).sum();
  }
};

}  // namespace

Tensor mean_cosine(const Tensor& a, const Tensor& b) {
  constexpr double eps = 1e-8;
  const Tensor x = a.to(at::kFloat), y = b.to(at::kFloat);
  const Tensor lengths = x.square().sum(1).sqrt().clamp_min(eps) * y.square().sum(1).sqrt().clamp_min(eps);
  return ((x * y).sum(1) / lengths).mean();
}

Alignment::Alignment(const AlignmentOptions& options, const Pipeline& model, const ModelSource& models, uint64_t seed)
    : o_(options), model_(model), features_(opened(options, model.compute(), models)), build_(seed) {
  o_.block = block_of(options, model.network());
  const ImageShape& image = model.options().image;
  const Tensor hidden = as_grid(probe(), grid_of(image));
  const Tensor wanted = features(at::zeros({1, image.channels, image.height, image.width}));
  const nn::Builder projection = build_["projection"];
  layers_[0] = projection.linear("0", hidden.size(1), o_.width);
  layers_[1] = projection.linear("2", o_.width, o_.width);
  layers_[2] = projection.linear("4", o_.width, wanted.size(1));
  move_to(build_.weights(), model.compute().device);
}

Tensor Alignment::probe() const {
  const at::NoGradGuard no_grad;
  const ImageShape& image = model_.options().image;
  Tensor seen;
  Taps taps;
  taps.blocks[o_.block] = [&](const Tensor&, const std::function<Tensor()>& compute) { return seen = compute(); };
  const Tensor images = at::zeros({1, image.channels, image.height, image.width});
  std::vector<Annotation> annotations(1);
  if (model_.options().conditioner->traits().classes > 0) annotations[0].label = 0;
  at::Generator random = at::detail::createCPUGenerator(0);
  Training training;
  model_.loss(OneCall(), {images, annotations}, training, random, taps);
  return seen;
}

std::vector<int64_t> Alignment::grid_of(const ImageShape& image) const {
  const ImageShape latent = model_.autoencoder().latent(image);
  const int64_t patch = model_.network().multiple();
  return {latent.height / patch, latent.width / patch};
}

Tensor Alignment::as_grid(const Tensor& hidden, const std::vector<int64_t>& grid) const {
  if (hidden.dim() == 4) return hidden;
  const int64_t count = grid[0] * grid[1];
  if (hidden.dim() != 3 || hidden.size(1) < count)
    fail(".block", fmt::format("'{}' gives [{}], which has no token for each of {}x{} patches", o_.block, fmt::join(hidden.sizes(), ", "),
                               grid[0], grid[1]));
  const Tensor tokens = hidden.narrow(1, hidden.size(1) - count, count);  // those of a condition stand in front
  return tokens.transpose(1, 2).reshape({hidden.size(0), hidden.size(2), grid[0], grid[1]});
}

Tensor Alignment::features(const Tensor& images) const {
  const at::NoGradGuard no_grad;
  const Features& f = *features_;
  const Tensor given = images.to(at::kCPU, at::kFloat);
  const Tensor input = given.size(1) == 1 && f.input().channels == 3 ? given.expand({-1, 3, -1, -1}).contiguous() : given;
  if (f.patch_width() > 0) return calling(f, "patches()", [&] { return f.patches(input); });
  const Tensor whole = calling(f, "extract()", [&] { return f.extract(input); }).features;
  expect_shape(&f, "extract()", whole, {images.size(0), f.width()});
  return whole.unsqueeze(2).unsqueeze(3);
}

Taps Alignment::taps() {
  seen_.clear();
  Taps taps;
  taps.blocks[o_.block] = [this](const Tensor&, const std::function<Tensor()>& compute) {
    Tensor out = compute();
    if (at::GradMode::is_enabled() && out.requires_grad()) seen_.push_back(out);
    return out;
  };
  return taps;
}

Tensor Alignment::cosine(const Tensor& images) {
  std::vector<Tensor> cosines;
  Tensor wanted;
  for (const Tensor& hidden : std::exchange(seen_, {})) {
    if (hidden.size(0) != images.size(0)) continue;  // an objective's own batch
    if (!wanted.defined()) wanted = features(images).to(hidden.device());
    Tensor h = as_grid(hidden, grid_of({images.size(1), images.size(2), images.size(3)}));
    const bool whole = features_->patch_width() == 0;
    if (whole) h = h.mean({2, 3}, true);
    const int64_t rows = h.size(2), columns = h.size(3);
    const bool same = wanted.size(2) == rows && wanted.size(3) == columns;
    const Tensor y = same ? wanted : at::_upsample_bilinear2d_aa(wanted, {rows, columns}, false);
    const Tensor tokens = h.flatten(2).transpose(1, 2).contiguous();  // [B, N, C]
    const Tensor p = layers_[2](nn::silu(layers_[1](nn::silu(layers_[0](tokens)))));
    cosines.push_back(mean_cosine(p.transpose(1, 2), y.flatten(2)));
  }
  if (cosines.empty()) return {};
  const Tensor mean = at::stack(cosines).mean();
  figure_ = mean.item<double>();
  return mean;
}

}  // namespace brume
