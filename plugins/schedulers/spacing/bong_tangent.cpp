// Two arctangents joined at the middle (RES4LYF's bong_tangent; stable-diffusion.cpp).
//
//   v: two pieces of (2/pi atan(-slope (x - pivot)) + 1) / 2 over whole x, scaled from 1 to `middle` and from there to 0; S = steps + 2,
//   the first of S (pivot_1 + pivot_2) / 2 places with its last left out; slopes over S / 40
//
// v is s in flow matching, or s_min + v (s_max - s_min) with `end: lowest`; else sigma = sigma_min + v (sigma_max - sigma_min).
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class BongTangent final : public Spacing {
 public:
  struct Options {
    double middle = 0.5, pivot_1 = 0.6, pivot_2 = 0.6, slope_1 = 0.2, slope_2 = 0.2;
    bool lowest = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.field("middle", middle, "the level at which the pieces meet, as a share", within(0.01, 0.99));
      f.field("pivot_1", pivot_1, "centre of the first piece, as a share of the steps", within(0.05, 0.95));
      f.field("pivot_2", pivot_2, "centre of the second", within(0.05, 0.95));
      f.field("slope_1", slope_1, "steepness of the first piece", more_than(0));
      f.field("slope_2", slope_2, "steepness of the second", more_than(0));
      f.choice("end", lowest, "where the curve ends in flow matching: at 0, or at the lowest level of the model (stable-diffusion.cpp)",
               {{"zero", false}, {"lowest", true}});
      declare_final(f, final_sigma);
    }
  };
  explicit BongTangent(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, 1000);
    const bool whole = table.flow() && !o_.lowest;
    const double lo = whole ? 0 : table.value(table.sigma(0)), hi = whole ? 1 : table.value(table.sigma(table.size() - 1));
    std::vector<double> sigmas;
    for (const double v : levels(steps)) sigmas.push_back(table.of_value(lo + v * (hi - lo)));
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  /// Returns the shares of the steps, without the last, 0.
  std::vector<double> levels(int64_t steps) const {
    const double all = double(steps + 2);
    const int64_t first = int64_t(all * (o_.pivot_1 + o_.pivot_2) / 2), last = steps + 2 - first;
    const double pivot = std::floor(all * o_.pivot_1), second = std::floor(all * o_.pivot_2) - double(first);
    std::vector<double> levels = first > 1 ? piece(first, o_.slope_1 * 40 / all, pivot, 1, o_.middle) : std::vector<double>{1, 0};
    levels.pop_back();
    if (first > 1)
      for (const double v : piece(last, o_.slope_2 * 40 / all, second, o_.middle, 0)) levels.push_back(v);
    levels.resize(size_t(steps));
    return levels;
  }
  static std::vector<double> piece(int64_t count, double slope, double pivot, double from, double to) {
    const auto curve = [&](int64_t x) { return (2 / M_PI * std::atan(-slope * (double(x) - pivot)) + 1) / 2; };
    std::vector<double> values;
    for (int64_t x = 0; x < count; ++x) values.push_back(to + (from - to) * (curve(x) - curve(count - 1)) / (curve(0) - curve(count - 1)));
    return values;
  }
  Options o_;
};

}  // namespace

void register_spacing_bong_tangent(Registry& r) { r.add<Spacing, BongTangent>("bong_tangent", "two arctangents joined at the middle"); }

}  // namespace brume::plugins
