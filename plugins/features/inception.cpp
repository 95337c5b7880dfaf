// The Inception v3 network of FID (Heusel et al. 2017; Szegedy et al. 2016), with weights that the user has: the file
// pt_inception-2015-12-05-6726825d.pth of pytorch-fid's releases, or weights-inception-2015-12-05-6726825d.pth of torch-fidelity's.
//
// Two ways of resizing to 299x299 exist, and they give different scores. `pytorch_fid`: values / 255, bilinear with half-pixel centres, 2x
// - 1. `torch_fidelity`, which is also ADM's and TensorFlow's: values 0 to 255, bilinear with source coordinate i * in / out, (x - 128) /
// 128.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/features.h"
#include "brume/core/warnings.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/nn/blocks/inception.h"
#include "brume/numerics/image_quality.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"

namespace brume::plugins {
namespace {

using nn::InceptionV3;

/// Lower neighbour, upper neighbour and weight of the upper one, as TensorFlow 1 resizes an axis: no half pixels, the upper neighbour
/// clamped.
struct Axis {
  Tensor lower, upper, weight;
  Axis(int64_t in, at::Device device) {
    const Tensor source = at::arange(InceptionV3::side, at::TensorOptions().dtype(at::kFloat).device(device)) *
                          (static_cast<float>(in) / static_cast<float>(InceptionV3::side));
    lower = source.floor().to(at::kLong).clamp(0, in - 1);
    upper = (lower + 1).clamp_max(in - 1);
    weight = source - lower.to(at::kFloat);
  }
};

/// images: [B, 3, H, W] float32, 0 to 255.
Tensor resized_as_tensorflow(const Tensor& images) {
  const Axis x(images.size(3), images.device()), y(images.size(2), images.device());
  const auto between = [](const Tensor& lower, const Tensor& upper, const Tensor& weight) { return lower + (upper - lower) * weight; };
  const Tensor wide = between(images.index_select(3, x.lower), images.index_select(3, x.upper), x.weight);
  return between(wide.index_select(2, y.lower), wide.index_select(2, y.upper), y.weight.view({-1, 1}));
}

class InceptionFeatures final : public Features {
 public:
  enum class Resize { pytorch_fid, torch_fidelity };
  struct Options {
    std::filesystem::path path;
    Resize resize = Resize::pytorch_fid;
    int64_t dims = InceptionV3::width;
    void declare(Fields& f) {
      f.field("path", path, "the weights: pt_inception-2015-12-05-6726825d.pth of pytorch-fid, or torch-fidelity's file");
      f.choice("resize", resize, "the program whose resizing and scaling it takes over; torch_fidelity's is also ADM's",
               {{"pytorch_fid", Resize::pytorch_fid}, {"torch_fidelity", Resize::torch_fidelity}});
      f.field("dims", dims, "number of features: 2048, or 768, 192 or 64 of an earlier block (pytorch-fid's dims)", within(64, 2048));
      f.require(dims == 2048 || dims == 768 || dims == 192 || dims == 64, "dims", "must be 64, 192, 768 or 2048");
    }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the file of the weights is missing (pt_inception-2015-12-05-6726825d.pth)");
  }
  InceptionFeatures(const Options& o, const Context& context)
      : o_(o), device_(context.device), dtype_(context.dtype), network_(read(o.path.string()), context.device) {
    hash_ = sha256(MappedFile::open(o.path.string())->bytes());
    if (!hash_.starts_with("6726825d"))
      warn(
          fmt::format("{}: is not one of the known files of Inception weights (its SHA-256 begins with {}, not with 6726825d); scores are "
                      "comparable only with those of this file",
                      o.path.string(), hash_.substr(0, 8)));
  }

  std::string name() const override {
    return fmt::format("inception {}{}", o_.path.string(),
                       o_.dims == InceptionV3::width ? "" : fmt::format(", {}", counted(o_.dims, "feature")));
  }
  std::string hash() const override { return hash_; }
  at::ScalarType dtype() const override { return dtype_; }
  std::string frechet_name() const override { return whole() ? "fid" : ""; }
  ImageShape input() const override { return {3, 0, 0}; }
  std::string preprocessing() const override {
    return fmt::format("rounded to 8 bits, resized to 299x299, bilinear, as {} does",
                       o_.resize == Resize::pytorch_fid ? "pytorch-fid" : "torch-fidelity");
  }
  int64_t width() const override { return o_.dims; }
  int64_t logit_width() const override { return whole() ? InceptionV3::classes : 0; }
  int64_t spatial_width() const override { return whole() ? InceptionV3::spatial_width : 0; }

  Output extract(const Tensor& images) const override {
    if (images.dim() != 4 || images.size(1) != 3)
      throw ConfigError(fmt::format("inception takes images of 3 channels, not {}", images.dim() == 4 ? images.size(1) : 0));
    const at::NoGradGuard no_grad;
    const InceptionV3::Output y = network_(prepared(images.to(device_, at::kFloat)).to(dtype_), o_.dims);
    const auto host = [](const Tensor& t) { return t.defined() ? t.to(at::kCPU, at::kFloat).contiguous() : t; };
    return {host(y.features), host(y.logits), host(y.spatial)};
  }

 private:
  static std::vector<Weight> read(const std::string& path) {
    NamedTensors tensors;
    for (NamedTensor& t : load_tensors(path))
      if (!t.name.ends_with(".num_batches_tracked")) tensors.push_back(std::move(t));
    std::vector<Weight> weights = InceptionV3::layout();
    load_weights(path, tensors, weights);
    return weights;
  }
  bool whole() const { return o_.dims == InceptionV3::width; }

  /// images: [B, 3, H, W] in [-1, 1]; returns [B, 3, 299, 299] in [-1, 1], from values of 8 bits.
  Tensor prepared(const Tensor& images) const {
    const Tensor values = byte_values(images).to(at::kFloat);
    if (o_.resize == Resize::torch_fidelity) return (resized_as_tensorflow(values) - 128) / 128;
    return at::upsample_bilinear2d(values / 255, {InceptionV3::side, InceptionV3::side}, false) * 2 - 1;
  }

  Options o_;
  at::Device device_;
  at::ScalarType dtype_;
  InceptionV3 network_;
  std::string hash_;
};

}  // namespace

void register_feature_inception(Registry& r) {
  r.add<Features, InceptionFeatures>("inception", "the features of FID: Inception v3 of 2015, with the user's own weights");
}

}  // namespace brume::plugins
