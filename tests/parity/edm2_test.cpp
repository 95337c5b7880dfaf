// Parity of EDM2's network, its loss, its sampling and its power-function averages with NVlabs/edm2 (shared/refs2/edm2).
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/plugin_loader.h"
#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/pipeline.h"
#include "brume/interop/import/import.h"
#include "brume/numerics/power_average.h"
#include "brume/train/ema.h"
#include "brume/train/options.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

const std::string edm2 = "../refs2/edm2/edm2_tiny_class", phema = "../refs2/edm2/phema.json";

class Edm2 : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(edm2 + ".safetensors");
    io_ = load_tensors(ref_path(edm2 + "_io.safetensors").string());
    const Imported model = import_model(ref_path(edm2 + ".safetensors"));
    network_ =
        make<Network>(dump_yaml(*model.options.find("network")), Network::Context{.input = {3, 16, 16}, .out_channels = 3, .classes = 5});
    NamedTensors own;
    for (const NamedTensor& t : model.tensors) own.push_back({t.name.substr(8), t.tensor});
    load_weights(edm2, own, network_->weights());
  }
  Tensor ref(const std::string& name) const { return *find(io_, name); }
  /// D(x) = c_skip x + c_out F(c_in x) of EDM's preconditioning.
  Tensor denoised(const Tensor& x, const Tensor& sigma) const {
    const Tensor s = sigma.view({-1, 1, 1, 1}), scale = (s * s + 0.25).sqrt();
    const Tensor f = network_->forward(x / scale, sigma.log() / 4, {.classes = ref("labels").argmax(1)}, nullptr);
    return x * (0.25 / (s * s + 0.25)) + f * (s * 0.5 / scale);
  }
  NamedTensors io_;
  std::shared_ptr<Network> network_;
};

TEST_F(Edm2, Denoises) {
  const at::NoGradGuard no_grad;
  expect_close(denoised(ref("x"), ref("sigma")), ref("out"), 2e-5, "EDM2");
  expect_close(network_->log_variance(ref("sigma").log() / 4), ref("logvar").reshape({-1}), 2e-5, "log variance");
}

TEST_F(Edm2, NormalizesItsWeightsForTraining) {
  network_->normalize_weights();
  const auto& wanted = ref_json(edm2 + ".json")["train"]["weights_after_forced_normalization"];
  size_t seen = 0;
  for (const Weight& w : network_->weights()) {
    if (!wanted.contains(w.name)) continue;
    ++seen;
    const double size = wanted[w.name]["sum_abs"].get<double>();
    EXPECT_NEAR(w.tensor.to(at::kDouble).sum().item<double>(), wanted[w.name]["sum"].get<double>(), 1e-5 * size + 1e-6) << w.name;
    EXPECT_NEAR(w.tensor.to(at::kDouble).abs().sum().item<double>(), size, 1e-5 * size + 1e-6) << w.name;
  }
  EXPECT_EQ(seen, wanted.size());
}

// The draws of EDM2's program: one normal number per image, then the noise.
TEST_F(Edm2, HasTheLossAndItsGradients) {
  network_->normalize_weights();
  for (Weight& w : network_->weights())
    if (w.trainable) w.tensor.set_requires_grad(true);
  at::Generator zero = at::detail::createCPUGenerator(0);
  const Tensor images = ref("train_images");
  const auto options = at::TensorOptions().dtype(at::kFloat);
  const Tensor sigma = (at::randn({images.size(0), 1, 1, 1}, zero, options) - 0.4).exp().reshape({-1});
  const Tensor noise = at::randn(images.sizes(), zero, options), s = sigma.view({-1, 1, 1, 1});
  const Tensor weight = (s * s + 0.25) / (s * 0.5).square(), u = network_->log_variance(sigma.log() / 4).view({-1, 1, 1, 1});
  const Tensor loss = weight / u.exp() * (denoised(images + noise * s, sigma) - images).square() + u;
  expect_close(loss.detach(), ref("train_loss"), 1e-4, "the loss");
  loss.mean().backward();
  const auto& wanted = ref_json(edm2 + ".json")["train"]["grads"];
  for (const Weight& w : network_->weights()) {
    if (!wanted.contains(w.name)) continue;
    const Tensor g = w.tensor.grad().to(at::kDouble);
    const double size = wanted[w.name]["sum_abs"].get<double>();
    EXPECT_NEAR(g.abs().sum().item<double>(), size, 1e-3 * size + 1e-5) << w.name;
    EXPECT_NEAR(g.sum().item<double>(), wanted[w.name]["sum"].get<double>(), 1e-3 * size + 1e-5) << w.name;
  }
}

TEST_F(Edm2, SamplesByHeun) {
  const StoredModel stored = open_stored(ref_path(edm2 + ".safetensors").string());
  Registry registry;
  register_builtins(registry);
  Value root = Value::map();
  root.set("model", stored.card.model);
  root.set("sample", stored.card.sample);
  const Config config = read_stored_configuration(registry, root, edm2, {});
  const Pipeline pipeline(config.model, Compute{}, StoredWeights{edm2, stored.tensors, stored.card.files});
  SchedulerConfig c = read_scheduler("sample: {sampler: heun, spacing: karras, steps: 6}");
  c.noise = config.model.noise, c.parameterization = config.model.parameterization;
  const at::NoGradGuard no_grad;
  FixedNoise none(0);
  const Trajectory t =
      run(c, pipeline.denoiser(), ref("noise.heun6") * 80, c.sigmas(), none, Condition{.classes = at::tensor({0, 3}, at::kLong)});
  expect_close(t.x.back(), ref("sample.heun6"), 1e-4, "Heun");
}

TEST(PowerAverage, ExponentsAndProducts) {
  BRUME_NEED_REF(phema);
  const auto& j = ref_json(phema);
  for (const auto& row : j["std_to_exp"])
    EXPECT_NEAR(power_exponent(row["std"]), row["exp"].get<double>(), 1e-9 * row["exp"].get<double>()) << row;
  for (const auto& row : j["exp_to_std"]) EXPECT_NEAR(power_length(row["exp"]), row["std"].get<double>(), 1e-9) << row;
  for (const auto& row : j["correlation"]) {
    const double value = row["value"];
    EXPECT_NEAR(power_product({row["a_ofs"], row["a_std"]}, {row["b_ofs"], row["b_std"]}), value, 1e-9 * value) << row;
  }
}

TEST(PowerAverage, PostHocWeights) {
  BRUME_NEED_REF(phema);
  for (const auto& c : ref_json(phema)["solve"]) {
    std::vector<PowerAverage> known;
    for (size_t i = 0; i < c["in_nimg"].size(); ++i) known.push_back({c["in_nimg"][i], c["in_std"][i]});
    for (size_t k = 0; k < c["out_std"].size(); ++k) {
      const std::vector<double> weights = post_hoc_weights(known, {c["out_nimg"], c["out_std"][k]});
      for (size_t i = 0; i < known.size(); ++i) EXPECT_NEAR(weights[i], c["coefs"][i][k].get<double>(), 1e-9) << i << ", " << k;
    }
  }
}

/// The parameter of the reference after step k.
float parameter(int64_t k) { return float(std::sin(0.3 * double(k)) + 0.01 * double(k)); }

TEST(PowerAverage, TracksAsTheReference) {
  BRUME_NEED_REF(phema);
  const auto& tracking = ref_json(phema)["tracking"];
  const EmaOptions options{.type = EmaOptions::Type::power, .std = tracking["stds"].get<std::vector<double>>()};
  for (size_t n = 0; n < options.std.size(); ++n) {
    std::vector<Weight> weights{{"p", at::tensor({0.5f})}};
    Ema average(weights, options, n);
    int64_t step = 0;
    for (const auto& row : tracking["values"]) {
      weights[0].tensor.fill_(parameter(step + 1));
      average.update(step++);
      EXPECT_NEAR(average.shadow()[0].tensor.item<double>(), row[n].get<double>(), 1e-5) << n << ", " << step;
    }
  }
}

// Of a noisy parameter, the average that was not tracked is within 1 % of the one that was.
TEST(PowerAverage, ReconstructsWhatWasTracked) {
  constexpr int64_t steps = 1024, every = 128;
  at::Generator random = at::detail::createCPUGenerator(3);
  const Tensor walk = at::randn({steps, 50}, random, at::TensorOptions().dtype(at::kFloat)).cumsum(0);
  const EmaOptions options{.type = EmaOptions::Type::power, .std = {0.05, 0.1, 0.07}};
  std::vector<Weight> weights{{"p", at::zeros({50})}};
  std::vector<Ema> averages;
  for (size_t n = 0; n < 3; ++n) averages.emplace_back(weights, options, n);
  std::vector<PowerAverage> known;
  std::vector<Tensor> values;
  for (int64_t step = 0; step < steps; ++step) {
    weights[0].tensor.copy_(walk[step]);
    for (Ema& average : averages) average.update(step);
    for (size_t n = 0; n < 2 && (step + 1) % every == 0; ++n) {
      known.push_back({double(step + 1), options.std[n]});
      values.push_back(averages[n].shadow()[0].tensor.to(at::kDouble));
    }
  }
  const std::vector<double> share = post_hoc_weights(known, {double(steps), 0.07});
  Tensor sum = at::zeros({50}, at::kDouble);
  for (size_t i = 0; i < share.size(); ++i) sum = sum + values[i] * share[i];
  const Tensor tracked = averages[2].shadow()[0].tensor.to(at::kDouble);
  EXPECT_LT(((sum - tracked).norm() / tracked.norm()).item<double>(), 0.01);
}

}  // namespace
}  // namespace brume::test
