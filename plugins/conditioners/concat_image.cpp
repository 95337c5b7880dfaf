// An image as condition, concatenated with the network's input channel by channel.
//
//   low_resolution   the image in 1 / factor of its size, enlarged to the latent's: super-resolution (Saharia et al. 2021, "Image
//                    Super-Resolution via Iterative Refinement"; Rombach et al. 2022, sec. 4.4)
//   masked           the mask (1 = to be generated) at every eighth pixel, or however large a latent is, then the latent of the image
//                    with the masked part grey (0): inpainting (Rombach et al. 2022, sec. 4.5). While training, masks are drawn: boxes, and
//                    all of the image now and then.
//
// With `keep`, the null condition of a `composite` keeps the image and leaves out the rest, as in Stable Diffusion's inpainting.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/upsample_bilinear2d.h>
#include <ATen/ops/upsample_nearest2d.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/autoencoder.h"
#include "brume/core/conditioner.h"
#include "brume/core/rows.h"

namespace brume::plugins {
namespace {

enum class Given { low_resolution, masked };

struct ConcatImageOptions {
  Given image = Given::low_resolution;
  int64_t factor = 4;
  double dropout = 0;
  bool kept = false;  ///< in the null condition
  void declare(Fields& f) {
    f.choice("image", image, "the known image: all of it, smaller (super-resolution), or a part of it (inpainting)",
             {{"low_resolution", Given::low_resolution}, {"masked", Given::masked}});
    f.field("factor", factor, "ratio of the image's sides to those of low_resolution", within(2, 64));
    f.field("dropout", dropout, "probability of a blank condition while training; 0 = no null condition, so no cfg", within(0, 1));
    f.field("keep", kept, "the null condition keeps the image, so that cfg is of the other conditions");
    f.require(!kept || dropout == 0, "dropout", "must be 0 if the null condition keeps the image");
  }
};

/// Returns one to three boxes per image, or, once in ten, all of it: [B, 1, H, W].
Tensor drawn_masks(int64_t count, const ImageShape& shape, at::Generator& random) {
  const Tensor masks = at::zeros({count, 1, shape.height, shape.width});
  const Tensor draws = draw_rows(count, [&](int64_t n) { return at::rand({n, 14}, random, at::kDouble); });
  for (int64_t i = 0; i < count; ++i) {
    const double* u = draws.data_ptr<double>() + 14 * i;
    Tensor mask = masks[i][0];
    if (u[0] < 0.1) {
      mask.fill_(1);
      continue;
    }
    for (int64_t box = 0; box < 1 + int64_t(u[1] * 3); ++box) {
      const double* b = u + 2 + 4 * box;
      const auto part = [](double size, double place, int64_t side) {
        const int64_t length = std::max<int64_t>(1, std::llround((0.15 + 0.45 * size) * double(side)));
        return std::pair(int64_t(place * double(side - length + 1)), length);
      };
      const auto [top, height] = part(b[0], b[1], shape.height);
      const auto [left, width] = part(b[2], b[3], shape.width);
      mask.narrow(0, top, height).narrow(1, left, width).fill_(1);
    }
  }
  return masks;
}

class ConcatImageEncoder final : public ConditionEncoder {
 public:
  explicit ConcatImageEncoder(const ConcatImageOptions& o) : o_(o) {}

  Condition encode(const ConditionRequest& request) const override {
    if (!request.images.defined())
      throw ConfigError(
          "this model makes images out of others (conditioner: concat_image), and none is given; encoded data sets have none");
    const at::NoGradGuard no_grad;
    Condition condition;
    const Tensor image = (o_.image == Given::masked ? masked(request) : low_resolution(request)).to(request.device);
    condition.image = image.size(0) == 1 ? image.expand({int64_t(request.annotations.size()), -1, -1, -1}) : image;
    if (o_.dropout == 0 && !o_.kept) return condition;
    Condition null;
    null.image = o_.kept ? condition.image : at::zeros_like(condition.image);
    condition.null = std::make_shared<Condition>(std::move(null));
    if (!request.dropout() || o_.kept) return condition;
    const Tensor draws = draw_rows(condition.image.size(0), [&](int64_t n) {
      return at::rand({n, 1, 1, 1}, *request.dropout(), at::kDouble);
    });
    const Tensor kept = draws >= o_.dropout;
    condition.image = condition.image * kept.to(condition.image.options());
    return condition;
  }

 private:
  Tensor low_resolution(const ConditionRequest& request) const {
    const ImageShape& whole = request.shape;
    const int64_t height = whole.height / o_.factor, width = whole.width / o_.factor;
    Tensor image = request.images;
    if (image.size(2) == whole.height && image.size(3) == whole.width) image = at::adaptive_avg_pool2d(image, {height, width});
    if (image.size(2) != height || image.size(3) != width)
      throw ConfigError(
          fmt::format("an image of {} by {} (height by width) is given; this model makes {} by {} out of {} by {}, or out of a "
                      "large one that it makes small itself",
                      image.size(2), image.size(3), whole.height, whole.width, height, width));
    const ImageShape z = request.first_stage->latent(whole);
    if (image.size(2) == z.height && image.size(3) == z.width) return image;
    return at::upsample_bilinear2d(image, {z.height, z.width}, false);
  }

  static Tensor masked(const ConditionRequest& request) {
    Tensor mask = request.masks;
    if (!mask.defined() && request.random) mask = drawn_masks(request.images.size(0), request.shape, *request.random);
    if (!mask.defined()) throw ConfigError("this model fills in what a mask leaves open (conditioner: concat_image), and none is given");
    mask = (mask >= 0.5).to(request.images.options());  // a pixel is open or known: a network never saw anything between
    const Tensor seen = request.first_stage->encode_moments(request.images * (1 - mask));
    const Tensor latent = request.first_stage->latents_of(seen, request.normal);
    return at::cat({at::upsample_nearest2d(mask, {latent.size(2), latent.size(3)}), latent.to(mask.scalar_type())}, 1);
  }

  ConcatImageOptions o_;
};

class ConcatImage final : public Conditioner {
 public:
  using Options = ConcatImageOptions;
  explicit ConcatImage(const Options& o) : o_(o) {}
  ConditionerTraits traits() const override {
    const auto channels = [o = o_](const ImageShape& image, const ImageShape& latent) {
      if (o.image == Given::masked) return latent.channels + 1;
      if (image.height % o.factor || image.width % o.factor)
        throw ConfigError(fmt::format("factor: {} does not divide the image's {} by {}", o.factor, image.height, image.width));
      return image.channels;
    };
    return {.image_channels = channels, .masks = o_.image == Given::masked, .has_null = o_.dropout > 0 || o_.kept};
  }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override { return std::make_shared<ConcatImageEncoder>(o_); }

 private:
  Options o_;
};

}  // namespace

void register_conditioner_concat_image(Registry& r) {
  r.add<Conditioner, ConcatImage>("concat_image", "an image concatenated with the input: super-resolution, inpainting");
}

}  // namespace brume::plugins
