// Every option of every sampler and spacing changes a run, is refused, or is warned of: no value that is given passes in silence.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "brume/config/registry.h"
#include "brume/config/yaml.h"
#include "brume/core/codes.h"
#include "brume/core/noise.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"
#include "brume/diffusion/unused_options.h"
#include "brume/numerics/timesteps.h"
#include "brume/train/options.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// Other values than the default, as YAML, for each plain option of a plugin.
class Candidates final : public Fields {
 public:
  std::vector<std::pair<std::string, std::string>> all;

  void field(std::string_view n, bool& v, std::string_view) override { add(n, v ? "false" : "true"); }
  void field(std::string_view n, int64_t& v, std::string_view, Range r) override { near(n, double(v), 1, r); }
  void field(std::string_view n, double& v, std::string_view, Range r) override { near(n, v, v == 0 ? 0.3 : v * 0.3, r); }
  void field(std::string_view, std::string&, std::string_view) override {}
  void field(std::string_view, std::filesystem::path&, std::string_view) override {}
  void field(std::string_view n, std::optional<int64_t>&, std::string_view, Range) override { add(n, "40"); }
  void field(std::string_view n, std::optional<double>&, std::string_view, Range r) override { near(n, 0.5, 0.2, r); }
  void field(std::string_view n, std::vector<int64_t>&, std::string_view, Range) override { add(n, "[1]"); }
  void field(std::string_view, std::vector<double>&, std::string_view, Range) override {}
  void field(std::string_view, std::vector<std::string>&, std::string_view) override {}
  void field(std::string_view, std::map<std::string, std::string>&, std::string_view) override {}
  void choice(std::string_view n, std::string& v, std::string_view, std::vector<std::string> words) override {
    for (const std::string& word : words)
      if (word != v) add(n, word);
  }
  void renamed(std::string_view, std::string_view) override {}
  void require(bool, std::string_view, std::string_view, std::string_view) override {}

 protected:
  void plugin(std::string_view, std::string_view, std::string_view, std::string_view, Set) override {}
  void plugins(std::string_view, std::string_view, std::string_view, std::function<void()>, Set) override {}
  void section_list(std::string_view, std::string_view, std::function<void()>, std::function<void()>) override {}
  bool open(std::string_view, std::string_view, bool) override { return false; }
  void close() override {}

 private:
  void add(std::string_view n, std::string value) { all.emplace_back(n, std::move(value)); }
  void near(std::string_view n, double value, double step, Range r) {
    for (const double v : {value + step, value - step, value * 10})
      if (v != value && v >= r.lo && v <= r.hi && !(r.open_lo && v == r.lo)) add(n, fmt::format("{:.12g}", v));
  }
};

class Wavy final : public Denoiser {
 public:
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = at::sin(x / (1 + sigma) * 3) * 0.7 + x * (0.1 / (1 + sigma * sigma));
    d.variance = at::tanh(x);
    return d;
  }
};

/// Returns the run of a plugin of made-up estimates in double precision.
Tensor result(const Sampler& sampler, const Config& of) {
  const std::vector<double> sigmas = distinct_levels(of.sample.spacing->sigmas(*of.model.noise, of.sample.steps));
  const Wavy denoiser;
  const auto noise = per_image_noise(0, 0);
  const Condition none;
  Run run{none, *noise, {}, &*of.model.noise};
  const Tensor drawn = noise->draw(at::empty({2, 1, 4, 4}, at::kDouble), sigmas[0], sigmas[0]);
  return sampler.sample(denoiser, drawn * of.model.noise->start_std(sigmas[0]), sigmas, run);
}
Tensor result(const Spacing& spacing, const Config& of) {
  return at::tensor(spacing.sigmas(*of.model.noise, of.sample.steps), at::kDouble);
}
const Sampler& plugin(const Config& of, const Sampler*) { return *of.sample.sampler; }
const Spacing& plugin(const Config& of, const Spacing*) { return *of.sample.spacing; }

/// Returns true of samplers that choose their steps: their options are thresholds, which may hold with another value as well.
bool has_thresholds(const Sampler& sampler) { return sampler.traits().own_count; }
bool has_thresholds(const Spacing&) { return false; }

/// A configuration and what its run does.
struct Outcome {
  bool refused = false;
  Tensor result;
  std::string warnings;
};

class Effect : public testing::Test {
 protected:
  template <class I>
  Outcome outcome(const char* noise, int steps, const std::string& section) {
    Outcome o;
    Registry registry = builtins();
    registry.on_warning([&](const Problem& warning) { o.warnings += warning.message + "\n"; });
    const std::string yaml = fmt::format(
        "model: {{image: {{channels: 1, height: 4, width: 4}}, network: gaussian, noise: {}, parameterization: x0}}\n"
        "sample: {{{}: {}, steps: {}}}\n",
        noise, I::kind, section, steps);
    try {
      const Value root = parse_yaml(yaml, "x.yaml");
      const Config config = read_configuration(registry, root);
      o.result = result(plugin(config, static_cast<const I*>(nullptr)), config);
      for (const std::string& text : unused_options(registry, root, config.model, config.model.image, config.sample))
        o.warnings += text + "\n";
    } catch (const ConfigError&) {
      o.refused = true;
    }
    return o;
  }

  /// Checks one value of one option in four runs.
  template <class I>
  void check(const std::string& name, const std::string& key, const std::string& value) {
    for (const char* noise : {"cosine", "flow"})
      for (const int steps : {6, 20}) {
        const std::string section = fmt::format("{{type: {}, {}: {}}}", name, key, value);
        if (!plain_.contains({noise, steps, name})) plain_[{noise, steps, name}] = outcome<I>(noise, steps, name);
        const Outcome &plain = plain_[{noise, steps, name}], other = outcome<I>(noise, steps, section);
        if (plain.refused || other.refused) continue;
        EXPECT_TRUE(!at::equal(plain.result, other.result) || other.warnings.find(key + " has no effect") != std::string::npos)
            << section << " changes nothing in " << steps << " steps of " << noise << ", and nobody says so: " << other.warnings;
        ++compared_;
      }
  }

  template <class I>
  void check_all() {
    for (const std::string& name : builtins().names(I::kind)) {
      Candidates options;
      builtins().entry(I::kind, name).declare(options);
      const auto plugin = create<I>(builtins(), Value::text(name));
      if (of_codes(*plugin) || has_thresholds(*plugin)) continue;  // a sampler of codes draws words, not numbers
      for (const auto& [key, value] : options.all) check<I>(name, key, value);
    }
    EXPECT_GT(compared_, 100);
  }

  int compared_ = 0;
  std::map<std::tuple<std::string, int, std::string>, Outcome> plain_;  ///< without the option
};

TEST_F(Effect, OfEveryOptionOfASampler) { check_all<Sampler>(); }
TEST_F(Effect, OfEveryOptionOfASpacing) { check_all<Spacing>(); }

}  // namespace
}  // namespace brume::test
