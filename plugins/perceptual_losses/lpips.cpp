// LPIPS (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual metric", eq. 1) on the features of VGG16
// (Simonyan & Zisserman 2015), with weights that the user has: torchvision's, and the linear heads of the `lpips` package.
//
//   d(a, b) = sum_l mean_hw  w_l . (f_l(a) - f_l(b))^2,   f_l = features of layer l, of unit length at each position
//
// Layers: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3. Images in [-1, 1] are brought to the statistics of ImageNet first.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <array>
#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/perceptual_loss.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/ops.h"
#include "brume/weights/weights_file.h"

namespace brume::plugins {
namespace {

/// Numbers of the convolutions in torchvision's VGG16, stage by stage.
const std::array<std::vector<int>, 5> stages{{{0, 2}, {5, 7}, {10, 12, 14}, {17, 19, 21}, {24, 26, 28}}};

class Lpips final : public PerceptualLoss {
 public:
  struct Options {
    std::filesystem::path vgg, heads;
    void declare(Fields& f) {
      f.field("vgg", vgg, "weights of VGG16 as torchvision names them (features.0.weight, ...): .safetensors or .pth");
      f.field("heads", heads, "the linear heads as the lpips package names them (lin0.model.1.weight, ...); empty = in `vgg` as well");
    }
  };
  static void check(const Options& o, const Context& context) {
    if (o.vgg.empty()) throw ConfigError("vgg: the file of the weights of VGG16 is missing");
    const ImageShape& s = context.image;
    if (s.channels != 1 && s.channels != 3) throw ConfigError(fmt::format("sees grey and RGB images, and these are {}", s.text()));
    if (s.height < 16 || s.width < 16) throw ConfigError(fmt::format("sees images of 16x16 pixels and more, and these are {}", s.text()));
  }
  Lpips(const Options& o, const Context& context) : dtype_(context.dtype) {
    const NamedTensors vgg = load_tensors(o.vgg.string());
    const std::filesystem::path& of_heads = o.heads.empty() ? o.vgg : o.heads;
    const NamedTensors heads = o.heads.empty() ? vgg : load_tensors(of_heads.string());
    for (size_t s = 0; s < stages.size(); ++s) {
      for (const int n : stages[s]) {
        const std::string plain = fmt::format("features.{}", n), packed = fmt::format("net.slice{}.{}", s + 1, n);
        const Tensor weight = wanted(vgg, {plain + ".weight", packed + ".weight"}, o.vgg, 4);
        convs_[s].push_back({keep(plain + ".weight", weight.contiguous(at::MemoryFormat::ChannelsLast)),
                             keep(plain + ".bias", wanted(vgg, {plain + ".bias", packed + ".bias"}, o.vgg, 1)), 1, 1});
      }
      const std::string head = fmt::format("lin{}.model.1.weight", s);
      heads_[s] = keep(head, wanted(heads, {head, fmt::format("lins.{}.model.1.weight", s)}, of_heads, 4));
      if (heads_[s].numel() != convs_[s].back().weight.size(0))
        throw ConfigError(fmt::format("{}: {} has {} for {}", of_heads.string(), head, counted(heads_[s].numel(), "value"),
                                      counted(convs_[s].back().weight.size(0), "feature")));
    }
    shift_ = keep("shift", at::tensor({-0.030f, -0.088f, -0.188f}).view({1, 3, 1, 1}));
    scale_ = keep("scale", at::tensor({0.458f, 0.448f, 0.450f}).view({1, 3, 1, 1}));
  }

  Tensor distance(const Tensor& a, const Tensor& b) const override {
    const std::vector<Tensor> fa = features(a), fb = features(b);
    Tensor sum;
    for (size_t s = 0; s < stages.size(); ++s) {
      const Tensor d = ((fa[s] - fb[s]).pow(2) * heads_[s].view({1, -1, 1, 1})).sum(1).mean(at::IntArrayRef{1, 2});
      sum = sum.defined() ? sum + d : d;
    }
    return sum;
  }
  std::vector<Weight> weights() const override { return weights_; }

 private:
  /// Returns a float32 copy; the first of these names that the file has.
  static Tensor wanted(const NamedTensors& file, const std::vector<std::string>& names, const std::filesystem::path& path, int64_t dim) {
    for (const std::string& name : names)
      if (const Tensor* t = find(file, name)) {
        if (t->dim() != dim)
          throw ConfigError(fmt::format("{}: {} has {}, expected {}", path.string(), name, counted(t->dim(), "dimension"), dim));
        return t->to(at::kFloat).clone();
      }
    throw ConfigError(fmt::format("{}: has no tensor '{}', nor '{}'", path.string(), names[0], names[1]));
  }
  Tensor keep(const std::string& name, Tensor tensor) {
    weights_.push_back({name, tensor, false});
    return tensor;
  }

  std::vector<Tensor> features(const Tensor& images) const {
    Tensor h = images.size(1) == 1 ? images.expand({-1, 3, -1, -1}) : images;
    h = ((h - shift_) / scale_).to(dtype_);
    std::vector<Tensor> all;
    for (size_t s = 0; s < stages.size(); ++s) {
      if (s > 0) h = at::max_pool2d(h, {2, 2}, {2, 2});
      for (const nn::Conv2d& conv : convs_[s]) h = nn::relu(conv(h));
      const Tensor f = h.to(at::kFloat);
      all.push_back(f / ((f.pow(2).sum(1, true) + 1e-20).sqrt() + 1e-10));
    }
    return all;
  }

  at::ScalarType dtype_;
  std::array<std::vector<nn::Conv2d>, 5> convs_;
  std::array<Tensor, 5> heads_;
  Tensor shift_, scale_;
  std::vector<Weight> weights_;
};

}  // namespace

void register_perceptual_loss_lpips(Registry& r) {
  r.add<PerceptualLoss, Lpips>("lpips", "Zhang et al. 2018 on VGG16, with the user's own weights");
}

}  // namespace brume::plugins
