// A perceptual distance out of a classifier that brume trained: how far apart the two images are in what its last layer sees, with the
// features brought to unit length, as Zhang et al. 2018 ("The unreasonable effectiveness of deep features as a perceptual metric") do
// theirs channel by channel.
//
//   d(a, b) = || f(a) / |f(a)| - f(b) / |f(b)| ||^2,   in [0, 4]
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/classifier.h"
#include "brume/core/perceptual_loss.h"

namespace brume::plugins {
namespace {

class OfClassifier final : public PerceptualLoss {
 public:
  struct Options {
    std::filesystem::path path;
    void declare(Fields& f) { f.field("path", path, "model.safetensors of a classifier"); }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the checkpoint of a classifier is missing");
  }
  OfClassifier(const Options& o, const Context& context) : classifier_(context.models->features(o.path.string())), dtype_(context.dtype) {
    const ImageShape& s = context.image;
    for (const Weight& w : classifier_->weights())
      if (w.tensor.dim() == 4 && w.tensor.size(1) != s.channels) {  // its first convolution
        throw ConfigError(
            fmt::format("{}: sees images of {}, and these are {}", o.path.string(), counted(w.tensor.size(1), "channel"), s.text()));
      } else if (w.tensor.dim() == 4) {
        break;
      }
  }
  Tensor distance(const Tensor& a, const Tensor& b) const override { return (seen(a) - seen(b)).pow(2).sum(1); }

 private:
  /// Returns [B, F], of unit length.
  Tensor seen(const Tensor& images) const {
    const Tensor no_noise = at::zeros({images.size(0)}, images.options());
    const Tensor f = classifier_->forward(images.to(dtype_), no_noise, nullptr).features.to(at::kFloat);
    return f / (f.pow(2).sum(1, true) + 1e-10).sqrt();
  }
  std::shared_ptr<const Classifier> classifier_;
  at::ScalarType dtype_;
};

}  // namespace

void register_perceptual_loss_classifier(Registry& r) {
  r.add<PerceptualLoss, OfClassifier>("classifier", "by the features of a classifier trained by brume");
}

}  // namespace brume::plugins
