// Models of codes (Austin et al. 2021, sec. 3.3): the network gives the logits of each position's code, and receives one-hot codes as they
// are.
//
//   p(x0) = softmax(F),   c_skip = 0, c_out = 1, c_in = 1
//
// Guidance extrapolates logits (Chang et al. 2023, "Muse", sec. 2.7): p = p_uncond^(1 - s) p_cond^s / Z.
#include "brume/config/registry.h"
#include "brume/core/codes.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class Logits final : public Parameterization, public OfCodes {
 public:
  struct Options {
    CodeKernel kernel = CodeKernel::absorbing;
    void declare(Fields& f) {
      f.choice("kernel", kernel, "what corrupted codes become: a mask, or any code",
               {{"absorbing", CodeKernel::absorbing}, {"uniform", CodeKernel::uniform}});
    }
  };
  explicit Logits(const Options& o) : o_(o) {}
  double c_skip(double) const override { return 0; }
  double c_out(double) const override { return 1; }
  double c_in(double, const NoiseSchedule&) const override { return 1; }
  std::optional<CodeKernel> kernel() const override { return o_.kernel; }

 private:
  Options o_;
};

}  // namespace

void register_parameterization_logits(Registry& r) {
  r.add<Parameterization, Logits>("logits", "the network predicts the logits of codes (autoencoder: codes)");
}

}  // namespace brume::plugins
