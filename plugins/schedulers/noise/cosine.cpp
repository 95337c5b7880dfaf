// The cosine schedule of Improved DDPM (Nichol & Dhariwal 2021, eq. 17).
//
//   alpha_bar(u) = cos^2(pi/2 (u + s) / (1 + s)),  beta_t = min(1 - alpha_bar((t+1)/T) / alpha_bar(t/T), max_beta)
#include <cmath>

#include "config/registry.h"
#include "core/noise_schedule.h"
#include "numerics/beta_table.h"

namespace brume::plugins {
namespace {

class Cosine final : public NoiseSchedule {
 public:
  struct Options {
    int64_t timesteps = 1000;
    double s = 0.008, max_beta = 0.999;
    void declare(Fields& f) {
      f.field("timesteps", timesteps, "number of training times T", at_least(2));
      f.field("s", s, "offset that keeps the first betas from vanishing", within(0, 1));
      f.field("max_beta", max_beta, "upper bound of beta near t = T", within(1e-6, 0.999999));
    }
  };
  explicit Cosine(const Options& o) : table_(betas(o)) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  static std::vector<double> betas(const Options& o) {
    const auto alpha_bar = [&](double u) { return std::pow(std::cos((u + o.s) / (1 + o.s) * M_PI / 2), 2); };
    return betas_of(alpha_bar, o.timesteps, o.max_beta);
  }
  BetaTable table_;
};

}  // namespace

void register_noise_cosine(Registry& r) { r.add<NoiseSchedule, Cosine>("cosine", "squared cosine of alpha_bar (Improved DDPM)"); }

}  // namespace brume::plugins
