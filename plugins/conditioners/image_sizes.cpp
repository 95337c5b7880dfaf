// The sizes of an image as condition (Podell et al. 2023, "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",
// sec. 2.2): its size before it was resized, the place of the crop, and the size of the crop, in pixels:
//
//   sizes = [original height, original width, top, left, target height, target width]
//
// The refiner has the aesthetic score of the image instead of the target size. For composite: the null condition has the negative sizes of
// the annotation, or the same ones.
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <optional>

#include "brume/config/registry.h"
#include "brume/core/conditioner.h"

namespace brume::plugins {
namespace {

struct ImageSizesOptions {
  std::optional<double> score;
  double negative_score = 2.5;
  void declare(Fields& f) {
    f.field("score", score, "aesthetic score instead of the target size: 6 (the refiner of SDXL); absent = the target size", within(0, 10));
    f.field("negative_score", negative_score, "aesthetic score of the null condition", within(0, 10));
  }
};

class Sizes final : public ConditionEncoder {
 public:
  explicit Sizes(const ImageSizesOptions& o) : o_(o) {}
  Condition encode(const ConditionRequest& request) const override {
    Condition condition, null;
    condition.sizes = ids(request, false);
    null.sizes = ids(request, true);
    condition.null = std::make_shared<Condition>(std::move(null));
    return condition;
  }

 private:
  Tensor ids(const ConditionRequest& request, bool negative) const {
    std::vector<float> numbers;
    for (const Annotation& a : request.annotations) {
      const SizeIds& s = negative ? a.negative_sizes.value_or(a.sizes) : a.sizes;
      const auto or_own = [](int64_t given, int64_t own) { return float(given > 0 ? given : own); };
      numbers.insert(numbers.end(), {or_own(s.original_height, request.shape.height), or_own(s.original_width, request.shape.width),
                                     float(s.top), float(s.left)});
      if (o_.score)
        numbers.push_back(float(negative ? o_.negative_score : *o_.score));
      else
        numbers.insert(numbers.end(), {or_own(s.target_height, request.shape.height), or_own(s.target_width, request.shape.width)});
    }
    return at::tensor(numbers).view({int64_t(request.annotations.size()), -1}).to(request.device);
  }

  ImageSizesOptions o_;
};

class ImageSizes final : public Conditioner {
 public:
  using Options = ImageSizesOptions;
  explicit ImageSizes(const Options& o) : o_(o) {}
  ConditionerTraits traits() const override { return {.size_ids = o_.score ? 5 : 6, .has_null = true}; }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override { return std::make_shared<Sizes>(o_); }

 private:
  Options o_;
};

}  // namespace

void register_conditioner_image_sizes(Registry& r) {
  r.add<Conditioner, ImageSizes>("image_sizes", "the original size, crop and target size of the image (SDXL); for composite");
}

}  // namespace brume::plugins
