// The network predicts the velocity of flow matching, v = eps - x0 (Lipman et al. 2023; Liu et al. 2023, "rectified flow"; Esser
// et al. 2024).
//
//   x0 = x / (1 + sigma) - sigma / (1 + sigma) F
//
// with sigma = t / (1 - t) of x_t = (1 - t) x0 + t eps. The network's frame is the schedule's: `flow` has 1 / (1 + sigma).
// `direction: to_image` is -v = x0 - eps, the velocity of those whose time goes from noise to image (SiT, Ma et al. 2024).
#include "brume/config/registry.h"
#include "brume/core/parameterization.h"

namespace brume::plugins {
namespace {

class Flow final : public Parameterization {
 public:
  struct Options {
    bool to_image = false;
    void declare(Fields& f) {
      f.choice("direction", to_image, "the velocity towards the noise, eps - x0, or towards the image, x0 - eps (SiT)",
               {{"to_noise", false}, {"to_image", true}});
    }
  };
  explicit Flow(const Options& o) : sign_(o.to_image ? -1 : 1) {}
  double c_skip(double sigma) const override { return 1 / (1 + sigma); }
  double c_out(double sigma) const override { return sign_ * (-sigma / (1 + sigma)); }

 private:
  double sign_;
};

}  // namespace

void register_parameterization_flow(Registry& r) {
  r.add<Parameterization, Flow>("flow", "the network predicts the velocity eps - x0 (flow matching)");
}

}  // namespace brume::plugins
