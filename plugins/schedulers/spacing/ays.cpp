// "Align your steps" (Sabour et al. 2024): the ten steps its authors optimised for a family of models, and log-linear
// interpolation of them for other numbers of steps (as in their quick start).
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
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.choice("model", family, "the models the steps were optimised for",
               {{"sd15", Family::sd15}, {"sdxl", Family::sdxl}, {"svd", Family::svd}});
      declare_final(f, final_sigma);
    }
  };
  explicit Ays(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    std::vector<double> sigmas = log_interpolated(optimised(), steps + 1);
    sigmas.pop_back();
    require_within(schedule, sigmas);
    const double lo = schedule.sigma(schedule.t_min()), hi = schedule.sigma(schedule.t_max());
    for (double& s : sigmas) s = std::clamp(s, lo, hi);  // the lists have three digits
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  const std::vector<double>& optimised() const {
    static const std::vector<double> sd15{14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029};
    static const std::vector<double> sdxl{14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029};
    static const std::vector<double> svd{700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002};
    return o_.family == Family::sd15 ? sd15 : o_.family == Family::sdxl ? sdxl : svd;
  }
  Options o_;
};

}  // namespace

void register_spacing_ays(Registry& r) { r.add<Spacing, Ays>("ays", "align your steps: optimised lists, interpolated"); }

}  // namespace brume::plugins
