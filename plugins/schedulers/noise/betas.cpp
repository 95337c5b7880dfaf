// A discrete schedule by its betas (Ho et al. 2020, eq. 2; "trained_betas" of diffusers).
#include "config/registry.h"
#include "core/noise_schedule.h"
#include "numerics/beta_table.h"

namespace brume::plugins {
namespace {

class Betas final : public NoiseSchedule {
 public:
  struct Options {
    std::vector<double> betas = {1e-4, 0.02};
    void declare(Fields& f) {
      f.field("betas", betas, "beta_t, t = 0 ... T - 1; the last may be 1 (zero terminal SNR)", within(1e-12, 1));
      f.require(betas.size() >= 2, "betas", "needs at least 2 entries");
    }
  };
  explicit Betas(const Options& o) : table_(o.betas) {}

  double sigma(double t) const override { return table_.sigma(t); }
  double time(double sigma) const override { return table_.time(sigma); }
  double t_min() const override { return 0; }
  double t_max() const override { return double(table_.size() - 1); }
  int64_t timesteps() const override { return table_.size(); }

 private:
  BetaTable table_;
};

}  // namespace

void register_noise_betas(Registry& r) { r.add<NoiseSchedule, Betas>("betas", "a list of betas"); }

}  // namespace brume::plugins
