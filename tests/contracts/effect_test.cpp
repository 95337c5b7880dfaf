// Every option of every sampler and spacing changes a run, is warned of, or is refused: no value that is given passes in silence.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/config/yaml.h"
#include "brume/core/noise.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"
#include "brume/numerics/timesteps.h"
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
    for (const double v : {value + step, value - step})
      if (v >= r.lo && v <= r.hi && !(r.open_lo && v == r.lo)) add(n, fmt::format("{:.12g}", v));
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

Tensor sampled(const Sampler& sampler, const NoiseSchedule& schedule, int64_t steps) {
  const auto spacing = create<Spacing>(builtins(), Value::text("trailing"));
  const std::vector<double> sigmas = distinct_levels(spacing->sigmas(schedule, steps));
  const Wavy denoiser;
  const auto noise = per_image_noise(0, 0);
  const Condition none;
  Run run{none, *noise, {}, &schedule};
  return sampler.sample(denoiser, noise->draw(at::empty({2, 1, 4, 4}, at::kDouble), sigmas[0], sigmas[0]) * sigmas[0], sigmas, run);
}

Tensor sampled(const Spacing& spacing, const NoiseSchedule& schedule, int64_t steps) {
  return at::tensor(spacing.sigmas(schedule, steps), at::kDouble);
}

class Effect : public testing::Test {
 protected:
  Effect() : registry_(builtins()) {
    registry_.on_warning([this](const Problem& warning) { said_ += warning.message + "\n"; });
    for (const char* name : {"cosine", "flow"}) schedules_.push_back(create<NoiseSchedule>(registry_, Value::text(name)));
  }

  /// What the plugin does in several runs; a text for each that it refuses.
  template <class I>
  std::vector<Tensor> runs(const std::string& yaml) {
    std::vector<Tensor> results;
    const auto plugin = create<I>(registry_, parse_yaml(yaml, "x.yaml"));
    for (const auto& schedule : schedules_)
      for (const int64_t steps : {6, 20}) {
        try {
          results.push_back(sampled(*plugin, *schedule, steps));
        } catch (const ConfigError& refused) {
          results.push_back(at::empty({0}));
        }
      }
    return results;
  }

  template <class I>
  void check() {
    for (const std::string& name : registry_.names(I::kind)) {
      Candidates options;
      registry_.entry(I::kind, name).declare(options);
      if (options.all.empty()) continue;
      const std::vector<Tensor> plain = runs<I>(fmt::format("{{type: {}}}", name));
      for (const auto& [key, value] : options.all) {
        said_.clear();
        const std::string yaml = fmt::format("{{type: {}, {}: {}}}", name, key, value);
        try {
          const std::vector<Tensor> other = runs<I>(yaml);
          bool differs = false;
          for (size_t i = 0; i < plain.size(); ++i) differs = differs || !at::equal(plain[i], other[i]);
          const bool told = said_.find(key + " has no effect") != std::string::npos;
          EXPECT_TRUE(differs || told) << yaml << " changes nothing, and nobody says so";
          EXPECT_FALSE(differs && told) << yaml << " is said to have no effect, and has one: " << said_;
        } catch (const ConfigError&) {  // refused
        }
      }
    }
  }

  Registry registry_;
  std::string said_;
  std::vector<std::shared_ptr<const NoiseSchedule>> schedules_;
};

TEST_F(Effect, OfEveryOptionOfASampler) { check<Sampler>(); }
TEST_F(Effect, OfEveryOptionOfASpacing) { check<Spacing>(); }

}  // namespace
}  // namespace brume::test
