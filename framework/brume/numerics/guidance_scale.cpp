#include "brume/numerics/guidance_scale.h"

#include <algorithm>
#include <cmath>

#include "brume/config/fields.h"
#include "brume/core/run_memory.h"

namespace brume {
namespace {

constexpr double quarter = 1.5707;  // pi / 2, as the dynamic thresholding of Stable Diffusion has it

}  // namespace

void ScaleCurve::declare(Fields& f) {
  f.choice("shape", shape, "how the scale goes from one end to the other",
           {{"linear", Shape::linear}, {"cosine", Shape::cosine}, {"half_cosine", Shape::half_cosine}, {"power", Shape::power}});
  f.choice("direction", rising, "the scale falls to the minimum, or rises from it", {{"down", false}, {"up", true}});
  f.field("minimum", minimum, "the scale at the low end; null = the one that does nothing", at_least(0));
  f.field("power", power, "exponent of the shape 'power'", more_than(0));
  f.unused(shape != Shape::power, "power", "shape is not power");
}

double ScaleCurve::at(double scale, double neutral, double sigma, const NoiseSchedule& schedule) const {
  const RunMemory* run = RunMemory::current();
  const double lo = schedule.t_min(), hi = schedule.t_max(), done = 1 - (schedule.time(sigma) - lo) / (hi - lo);
  const double u =
      std::clamp(!run || run->steps() == 0 ? done : double(run->step_at(sigma)) / double(std::max<int64_t>(1, run->steps() - 1)), 0.0, 1.0);
  const auto either = [&](double falling) { return rising ? 1 - falling : falling; };
  const double share = shape == Shape::linear        ? either(1 - u)
                       : shape == Shape::cosine      ? either(std::cos(quarter * u))
                       : shape == Shape::half_cosine ? either(std::cos(u))
                                                     : either(1 - std::pow(u, power));
  const double least = minimum.value_or(neutral);
  return least + (scale - least) * share;
}

void GuidanceScale::declare(Fields& f, const char* what) {
  f.field("scale", scale, what, at_least(0));
  f.field("sigma_lo", sigma_lo, "guide above this noise level only", at_least(0));
  f.field("sigma_hi", sigma_hi, "guide up to this noise level only", more_than(0));
  f.section("curve", curve, "course of the scale over the steps of a run; absent = constant");
  f.unused(!steers(), {"sigma_lo", "sigma_hi"}, neutral == 0 ? "scale is 0" : "scale is 1");
  f.require(!sigma_hi || *sigma_hi > sigma_lo, "sigma_hi", "must be more than sigma_lo");
}

double ScaleAt::operator()(double sigma) const {
  const GuidanceScale& o = options_;
  if (sigma <= o.sigma_lo || (o.sigma_hi && sigma > *o.sigma_hi)) return o.neutral;
  return o.curve ? o.curve->at(o.scale, o.neutral, sigma, *schedule_) : o.scale;
}

}  // namespace brume
