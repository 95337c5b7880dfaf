#include "brume/diffusion/unused_options.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/config/yaml.h"
#include "brume/core/codes.h"
#include "brume/core/noise.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/guided_denoiser.h"
#include "brume/numerics/timesteps.h"

namespace brume {
namespace {

constexpr int64_t most_steps = 2000;

bool written(const Place& place) { return place.file && !place.stored; }

/// A denoiser whose estimates depend on every number of x and on sigma, with all that an estimate may have.
class MadeUp final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = at::sin(x / (1 + sigma) * 3) * 0.7 + x * (0.1 / (1 + sigma * sigma));
    d.variance = at::zeros_like(x);
    return d;
  }
};

/// Returns the run of a sampler on the made-up denoiser, from the same noise each time.
Tensor result_of(const Sampler& sampler, const NoiseSchedule& schedule, const std::vector<double>& sigmas) {
  const MadeUp denoiser;
  const auto noise = per_image_noise(0, 0);
  const Condition none;
  Run run{none, *noise, {}, &schedule};
  const Tensor x = noise->draw(at::empty({2, 1, 4, 4}, at::kDouble), sigmas[0], sigmas[0]) * schedule.start_std(sigmas[0]);
  return sampler.sample(denoiser, x, sigmas, run);
}

/// Tells whether two plugins of one kind, the second of which lacks an option, do the same.
using Same = std::function<bool(const std::shared_ptr<void>& whole, const std::shared_ptr<void>& without)>;

class Finder final {
 public:
  Finder(const Registry& registry, const ModelOptions& model, const ImageShape& latent, const SampleOptions& options)
      : registry_(registry), model_(model), latent_(latent), options_(options) {
    registry_.on_warning([this](const Problem& warning) { said_.push_back(warning.message); });
  }
  std::vector<std::string> found;

  void sampler(const Value& sample) {
    const Value* section = sample.find("sampler");
    const SamplerTraits traits = options_.sampler->traits();
    const Value *spacing = sample.find("spacing"), *steps = sample.find("steps");
    if (spacing && traits.own_steps && written(spacing->place))
      add(spacing->place, "sample.spacing", "only its first and last level count, as the sampler takes its own steps between them");
    if (steps && traits.own_count && written(steps->place))
      add(steps->place, "sample.steps", "counts for the first and the last level alone, as the sampler chooses the number of its steps");
    if (!section || traits.own_count || of_codes(*options_.sampler) || levels(*options_.spacing).empty()) return;
    const std::vector<double> sigmas = distinct_levels(levels(*options_.spacing));
    each_option("sampler", *section, [&](const auto& whole, const auto& without) {
      const Tensor a = result_of(*std::static_pointer_cast<const Sampler>(whole), *model_.noise, sigmas);
      return at::equal(a, result_of(*std::static_pointer_cast<const Sampler>(without), *model_.noise, sigmas));
    });
  }

  void spacing(const Value& sample) {
    const Value* section = sample.find("spacing");
    if (!section || options_.sampler->traits().own_steps) return;
    each_option("spacing", *section, [&](const auto& whole, const auto& without) {
      const std::vector<double> a = levels(*std::static_pointer_cast<const Spacing>(whole));
      return !a.empty() && a == levels(*std::static_pointer_cast<const Spacing>(without));
    });
  }

  void guidances(const Value& sample) {
    const Value* section = sample.find("guidance");
    const SamplerTraits sampler = options_.sampler->traits();
    for (size_t i = 0; section && i < options_.guidance.size(); ++i) {
      const GuidanceTraits traits = options_.guidance[i]->traits();
      const Value& item = section->is_list() && i < section->items.size() ? section->items[i] : *section;
      const auto tell = [&](const char* key, const char* why) {
        if (const Value* given = item.find(key); given && written(given->place))
          add(given->place, fmt::format("sample.guidance.{}", i), fmt::format("{} has no effect, as {}", key, why));
      };
      if (traits.sets_direction && !sampler.keeps_direction)
        tell("keep_direction", "the sampler takes no direction but its own; ddim, euler and dpmpp_multistep take it");
      if (traits.sets_gradient && !sampler.takes_gradient) tell("form", "the sampler shifts no mean by a gradient; ddpm does");
    }
  }

 private:
  void add(const Place& place, const std::string& path, const std::string& message) {
    found.push_back(Problem{place, path, message}.text());
  }

  /// Returns the levels of a run; none if they cannot be had, which is reported elsewhere.
  std::vector<double> levels(const Spacing& spacing) const try {
    return sigmas_for(spacing, latent_, *model_.noise, options_.steps);
  } catch (const ConfigError&) {
    return {};
  }

  /// Looks at each option of a plugin that somebody wrote and that is not its default.
  void each_option(const std::string& kind, const Value& section, const Same& same) {
    if (!section.is_map()) return;
    for (const Value::Entry& option : section.entries) {
      if (option.key == "type" || !written(option.value.place)) continue;
      Value without = section, full, rest;
      without.erase(option.key);
      said_.clear();
      try {
        const auto whole = made(kind, section, full), other = made(kind, without, rest);
        if (dump_yaml(full) == dump_yaml(rest) || declared(option.key) || !same(whole, other)) continue;
      } catch (const std::exception&) {
        continue;  // it counts: without it, there is no run
      }
      add(option.value.place, "sample." + kind,
          fmt::format("{} has no effect on these {}: without it, they are the same", option.key, counted(options_.steps, "step")));
    }
  }
  std::shared_ptr<void> made(const std::string& kind, const Value& section, Value& full) {
    return read_plugin(registry_, kind, section, "sample." + kind, &full).make(nullptr);
  }
  /// Returns true if reading the options warns of this one.
  bool declared(const std::string& key) {
    const std::string was = key + " is now ", ending = " has no effect";
    return std::any_of(said_.begin(), said_.end(), [&](const std::string& text) {
      const size_t at = text.find(was);  // of a former name, the warning names the field of today
      const std::string name = at == text.npos ? key : text.substr(at + was.size());
      return std::any_of(said_.begin(), said_.end(), [&](const std::string& other) { return other.starts_with(name + ending); });
    });
  }

  Registry registry_;
  const ModelOptions& model_;
  const ImageShape& latent_;
  const SampleOptions& options_;
  std::vector<std::string> said_;
};

}  // namespace

std::vector<std::string> unused_options(const Registry& registry, const Value& root, const ModelOptions& model, const ImageShape& latent,
                                        const SampleOptions& options) {
  const Value* sample = root.is_map() ? root.find("sample") : nullptr;
  if (!sample || !sample->is_map() || options.steps > most_steps) return {};
  const at::NoGradGuard no_grad;
  const WarningScope silent({});
  Finder finder(registry, model, latent, options);
  finder.sampler(*sample);
  finder.spacing(*sample);
  finder.guidances(*sample);
  return std::move(finder.found);
}

}  // namespace brume
