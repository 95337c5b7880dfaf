// Another spacing, without its lowest level or with a bound on its first: what ComfyUI does to the levels of any of its schedulers for
// some samplers; or without its end (A1111's DDIM).
//
//   inclusive: false   level[0], ..., level[steps - 1], end   out of the levels of steps + 1 steps
//   end: lowest        level[0], ..., level[steps - 1]        the last of which is the end, after one step less
//   t_max              sigma at most sigma(t_max), where log sigma of the first level would be infinite (s = 1 of flow matching)
#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/sized_spacing.h"
#include "brume/numerics/timesteps.h"

namespace brume::plugins {
namespace {

class Trimmed final : public SizedSpacing {
 public:
  struct Options {
    std::shared_ptr<const Spacing> spacing;
    bool inclusive = false, lowest = false;
    std::optional<double> t_max;
    void declare(Fields& f) {
      f.field("spacing", spacing, "the spacing whose levels these are", "simple");
      declare_inclusive(f, inclusive);
      f.choice("end", lowest, "the end of the other spacing, or its lowest level, after one step less (A1111's DDIM)",
               {{"given", false}, {"lowest", true}});
      f.field("t_max", t_max, "largest training time of a level; null = the schedule's");
    }
  };
  explicit Trimmed(const Options& o) : o_(o) {}

  std::vector<double> sigmas(const NoiseSchedule& schedule, int64_t steps) const override {
    std::vector<double> sigmas = o_.spacing->sigmas(schedule, steps + !o_.inclusive);
    if (!o_.inclusive && sigmas.size() > 2) sigmas.erase(sigmas.end() - 2);
    if (o_.lowest && sigmas.size() > 2) sigmas.pop_back();
    if (o_.t_max)
      for (double& s : sigmas) s = std::min(s, schedule.sigma(*o_.t_max));
    return sigmas;
  }

  std::shared_ptr<const Spacing> for_size(const ImageShape& latent) const override {
    Options own = o_;
    if (const auto* sized = dynamic_cast<const SizedSpacing*>(o_.spacing.get())) own.spacing = sized->for_size(latent);
    return std::make_shared<Trimmed>(own);
  }

 private:
  Options o_;
};

}  // namespace

void register_spacing_trimmed(Registry& r) {
  r.add<Spacing, Trimmed>("trimmed", "another spacing without its lowest level, or with a bound on its first (ComfyUI)");
}

}  // namespace brume::plugins
