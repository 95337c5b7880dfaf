// "OptimalSteps" (Pei et al. 2025, "Optimal stepsize for diffusion sampling"): the steps found for families of flow matching models, and
// log-linear interpolation of them for other numbers of steps.
#include "brume/config/registry.h"
#include "brume/core/spacing.h"
#include "brume/numerics/level_table.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

enum class Family { flux, wan, chroma };

class OptimalSteps final : public Spacing {
 public:
  struct Options {
    Family family = Family::flux;
    FinalSigma final_sigma = FinalSigma::zero;
    void declare(Fields& f) {
      f.choice("model", family, "the models that the steps were found for",
               {{"flux", Family::flux}, {"wan", Family::wan}, {"chroma", Family::chroma}});
      declare_final(f, final_sigma);
    }
  };
  explicit OptimalSteps(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    const LevelTable table(schedule, 1000);
    if (!table.flow()) throw ConfigError("optimal_steps is for flow matching (noise: flow), and this schedule is another");
    std::vector<double> sigmas = log_interpolated(levels(), steps + 1);
    sigmas.pop_back();
    for (double& s : sigmas) s = table.of_value(s);
    return with_final(std::move(sigmas), schedule, o_.final_sigma);
  }

 private:
  const std::vector<double>& levels() const {
    static const std::vector<double> flux{0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001};
    static const std::vector<double> wan{1,     0.997, 0.995, 0.993, 0.991, 0.989, 0.987, 0.985, 0.98,  0.975, 0.973,
                                         0.968, 0.96,  0.946, 0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001};
    static const std::vector<double> chroma{0.992, 0.99,  0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943,
                                            0.931, 0.917, 0.9,   0.881, 0.858, 0.832, 0.802, 0.769, 0.731, 0.69,  0.646,
                                            0.599, 0.55,  0.501, 0.451, 0.402, 0.355, 0.311, 0.27,  0.232, 0.199, 0.169,
                                            0.143, 0.12,  0.101, 0.084, 0.07,  0.058, 0.048, 0.001};
    return o_.family == Family::flux ? flux : o_.family == Family::wan ? wan : chroma;
  }
  Options o_;
};

}  // namespace

void register_spacing_optimal_steps(Registry& r) {
  r.add<Spacing, OptimalSteps>("optimal_steps", "OptimalSteps: lists for flow matching models, interpolated");
}

}  // namespace brume::plugins
