// "Align your steps" (Sabour et al. 2024): the ten steps its authors optimised for a family of models, and log-linear
// interpolation of them for other numbers of steps (as in their quick start). `digits: levels` has the levels of Stable Diffusion's
// schedule that the lists stand for (ComfyUI). The lowest level of a list is the end of the run; with `inclusive` it is the last step
// (A1111).
#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

enum class Family { sd15, sdxl, svd };

class Ays final : public Spacing {
 public:
  struct Options {
    Family family = Family::sd15;
    bool levels = false, inclusive = false;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.choice("model", family, "the models the steps were optimised for",
               {{"sd15", Family::sd15}, {"sdxl", Family::sdxl}, {"svd", Family::svd}});
      f.choice("digits", levels, "the lists as published, to three digits, or the levels of the schedule that they stand for (ComfyUI)",
               {{"published", false}, {"levels", true}});
      f.unused(family == Family::svd, "digits", "model is svd");
      declare_inclusive(f, inclusive);
      declare_final(f, final_sigma);
    }
  };
  explicit Ays(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    std::vector<double> sigmas = log_interpolated(optimised(), steps + !o_.inclusive);
    const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max());
    o_.inclusive ? void(sigmas.back() = std::max(sigmas.back(), lo)) : sigmas.pop_back();
    require_within(schedule, sigmas);
    for (double& s : sigmas) s = std::clamp(s, lo, hi);  // the lists have three digits
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  const std::vector<double>& optimised() const {
    static const std::vector<double> sd15{14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029};
    static const std::vector<double> sdxl{14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029};
    static const std::vector<double> svd{700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002};
    static const std::vector<double> sd15_levels{14.6146412293, 6.4745760956, 3.8636745985, 2.694615152,  1.8841921177, 1.3943805092,
                                                 0.9642583904,  0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582};
    static const std::vector<double> sdxl_levels{14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
                                                 0.5550693289,  0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582};
    if (o_.levels && o_.family != Family::svd) return o_.family == Family::sd15 ? sd15_levels : sdxl_levels;
    return o_.family == Family::sd15 ? sd15 : o_.family == Family::sdxl ? sdxl : svd;
  }
  Options o_;
};

}  // namespace

void register_spacing_ays(Registry& r) { r.add<Spacing, Ays>("ays", "align your steps: optimised lists, interpolated"); }

}  // namespace brume::plugins
