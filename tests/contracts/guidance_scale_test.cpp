// The scale of guidances over a run: its interval, its curves, and both in every guidance that has them.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/sin.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/core/guidance.h"
#include "brume/core/run_memory.h"
#include "brume/numerics/guidance_scale.h"
#include "support/models.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const std::vector<double> levels{8, 4, 2, 1, 0.5, 0};  // five steps

std::vector<double> scales(const GuidanceScale& options) {
  const ScaleAt scale(options, make<NoiseSchedule>("cosine"));
  const RunMemory memory(per_image_noise(0, 0), levels);
  std::vector<double> all;
  for (size_t i = 0; i + 1 < levels.size(); ++i) all.push_back(scale(levels[i]));
  return all;
}

TEST(GuidanceScale, FollowsItsCurve) {
  using Shape = ScaleCurve::Shape;
  for (const auto& [shape, rising] : {std::pair(Shape::linear, false),
                                      {Shape::linear, true},
                                      {Shape::cosine, false},
                                      {Shape::cosine, true},
                                      {Shape::half_cosine, false},
                                      {Shape::half_cosine, true},
                                      {Shape::power, false},
                                      {Shape::power, true}}) {
    const std::vector<double> got = scales({.scale = 9, .curve = ScaleCurve{.shape = shape, .rising = rising, .minimum = 3, .power = 4}});
    for (size_t i = 0; i < 5; ++i) {
      const double u = double(i) / 4, down = shape == Shape::linear        ? 1 - u
                                             : shape == Shape::cosine      ? std::cos(1.5707 * u)
                                             : shape == Shape::half_cosine ? std::cos(u)
                                                                           : 1 - u * u * u * u;
      EXPECT_NEAR(got[i], 3 + 6 * (rising ? 1 - down : down), 1e-12) << int(shape) << rising << i;
    }
  }
}

TEST(GuidanceScale, IsNeutralOutsideItsInterval) {
  EXPECT_EQ(scales({.scale = 5, .sigma_lo = 1, .sigma_hi = 4}), (std::vector<double>{1, 5, 5, 1, 1}));
  EXPECT_EQ(scales({.neutral = 0, .scale = 5, .sigma_lo = 0.7}), (std::vector<double>{5, 5, 5, 5, 0}));
  EXPECT_FALSE(GuidanceScale().steers());
  EXPECT_FALSE((GuidanceScale{.curve = ScaleCurve{}}).steers()) << "from 1 to 1";
  EXPECT_TRUE((GuidanceScale{.curve = ScaleCurve{.minimum = 2}}).steers());
}

// The curve goes by the training times where no run counts steps.
TEST(GuidanceScale, OutsideARunTheTimesCount) {
  const auto schedule = make<NoiseSchedule>("cosine");
  const ScaleAt scale({.scale = 3, .curve = ScaleCurve{.shape = ScaleCurve::Shape::linear}}, schedule);
  EXPECT_NEAR(scale(schedule->sigma(schedule->t_max())), 3, 1e-6);
  EXPECT_NEAR(scale(schedule->sigma(schedule->t_min())), 1, 1e-6);
  EXPECT_NEAR(scale(schedule->sigma((schedule->t_max() + schedule->t_min()) / 2)), 2, 1e-6);
}

/// x0 = sin(x + class / 3).
class ClassSine final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double, const Condition& condition) const override {
    return {at::sin(x + condition.classes.to(x.scalar_type()).view({-1, 1, 1, 1}) / 3), {}, {}};
  }
};

class Curved : public testing::TestWithParam<std::string> {
 protected:
  static Tensor x0(const std::string& options, size_t step) {
    const auto inner = std::make_shared<ClassSine>();
    const auto tapped = [&](const Taps&) -> std::shared_ptr<const Denoiser> { return std::make_shared<ClassSine>(); };
    const GuidedModel model{.schedule = make<NoiseSchedule>("cosine"),
                            .models = no_models(),
                            .parameterization = make<Parameterization>("v"),
                            .controls = {5, true},
                            .tap_points = {.blocks = {"block"}, .skippable = {"block"}, .attention = {"block"}},
                            .denoiser = tapped};
    Condition c, null;
    c.classes = at::arange(3, at::kLong);
    null.classes = at::full({3}, 5, at::kLong);
    c.null = std::make_shared<Condition>(null);
    const RunMemory memory(per_image_noise(0, 0), levels);
    const Tensor x = at::arange(3 * 3 * 16, at::kDouble).view({3, 3, 4, 4}) * 0.37;
    return make<Guidance>(fmt::format("{{type: {}{}}}", GetParam(), options))->wrap(inner, model)->denoise(x, levels[step], c).x0;
  }
};

TEST_P(Curved, GoesFromItsScaleToItsMinimum) {
  const std::string curve = ", curve: {shape: linear, minimum: 1}";
  const Tensor constant = x0(", scale: 3", 0), first = x0(", scale: 3" + curve, 0), last = x0(", scale: 3" + curve, 4);
  EXPECT_TRUE(at::equal(first, constant));
  EXPECT_TRUE(at::equal(last, x0(", scale: 1", 4))) << "at the neutral scale, the conditional model";
  EXPECT_FALSE(at::equal(x0(", scale: 3", 4), last));
  EXPECT_TRUE(at::equal(x0(", scale: 3" + curve, 2), x0(", scale: 2", 2)));
  EXPECT_TRUE(at::equal(x0(", scale: 3, sigma_lo: 2", 2), x0(", scale: 1", 2))) << "outside its interval";
}

INSTANTIATE_TEST_SUITE_P(Guidances, Curved,
                         testing::Values("cfg", "apg", "tcfg", "cfg_norm", "magnitude_aware", "cfg_zero_star", "perp_neg"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace brume::test
