// Parity of the diffusion transformer with the programs of DiT, SiT and PixArt and with diffusers' DiT (shared/refs2): one call of the
// network from each file, and the trajectories of DiT's DDPM and DDIM and of SiT's ODE under classifier-free guidance.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/plugin_loader.h"
#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/pipeline.h"
#include "brume/interop/import/import.h"
#include "brume/train/options.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/imported_network.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

const std::string dit = "../refs2/dit/dit_tiny_p2_sigma", sit = "../refs2/sit/sit_tiny_p2_sigma";

Tensor output(const Network& network, const NamedTensors& io) {
  const at::NoGradGuard no_grad;
  return network.forward(*find(io, "x"), find(io, "t")->to(at::kFloat), {.classes = find(io, "y")->to(at::kLong)}, nullptr);
}

Imported import_ref(const std::string& name) { return import_model(ref_path(name)); }
NamedTensors load_ref(const std::string& name) { return load_tensors(ref_path(name).string()); }

TEST(Dit, GivesTheOutputOfDit) {
  BRUME_NEED_REF(dit + ".safetensors");
  const NamedTensors io = load_ref(dit + "_io.safetensors");
  const auto network = network_of(import_ref(dit + ".safetensors"), {.input = {4, 8, 8}, .out_channels = 8, .classes = 1001});
  expect_close(output(*network, io), *find(io, "out"), 2e-5, "DiT");
}

TEST(Dit, GivesTheOutputOfDiffusers) {
  BRUME_NEED_REF(dit + "_diffusers/transformer/config.json");
  const NamedTensors io = load_ref(dit + "_diffusers_forward.safetensors");
  for (const char* folder : {"_diffusers", "_diffusers/transformer"}) {
    const auto network = network_of(import_ref(dit + folder), {.input = {4, 8, 8}, .out_channels = 8, .classes = 1001});
    expect_close(output(*network, io), *find(io, "out"), 2e-5, "diffusers' DiT");
  }
}

TEST(Dit, TheDirectoryHasTheWeightsOfTheFile) {
  BRUME_NEED_REF(dit + "_diffusers/transformer/config.json");
  const NamedTensors file = import_ref(dit + ".safetensors").tensors, folder = import_ref(dit + "_diffusers").tensors;
  for (const NamedTensor& t : file) {
    const Tensor* same = find(folder, t.name);
    ASSERT_TRUE(same) << t.name;
    EXPECT_TRUE(at::equal(*same, t.tensor)) << t.name;
  }
  EXPECT_EQ(file.size(), 31u);
}

TEST(Dit, GivesTheOutputOfSit) {
  BRUME_NEED_REF(sit + ".safetensors");
  const NamedTensors io = load_ref(sit + "_io.safetensors");
  const auto network = network_of(import_ref(sit + ".safetensors"), {.input = {4, 8, 8}, .out_channels = 4, .classes = 11});
  expect_close(output(*network, io), *find(io, "out"), 2e-5, "SiT");
}

TEST(Dit, GivesTheOutputOfPixart) {
  const std::string pixart = "../refs2/pixart/pixart_tiny";
  BRUME_NEED_REF(pixart + ".safetensors");
  const NamedTensors io = load_ref(pixart + "_io.safetensors");
  for (const char* from : {".safetensors", "_diffusers"}) {
    const auto network = network_of(import_ref(pixart + from), {.input = {4, 8, 8}, .out_channels = 8, .context_width = 40});
    const at::NoGradGuard no_grad;
    Condition condition;
    condition.context = find(io, "y")->squeeze(1);
    const auto run = [&] { return network->forward(*find(io, "x"), find(io, "t")->to(at::kFloat), condition, nullptr); };
    expect_close(run(), *find(io, "out_nomask"), 2e-5, "PixArt without a mask");
    condition.context_mask = find(io, "mask")->to(at::kFloat);
    expect_close(run(), *find(io, "out"), 2e-5, "PixArt");
  }
}

TEST(Dit, TheDirectoryOfPixartHasTheWeightsOfTheFile) {
  const std::string pixart = "../refs2/pixart/pixart_tiny";
  BRUME_NEED_REF(pixart + "_diffusers/config.json");
  const NamedTensors file = import_ref(pixart + ".safetensors").tensors, folder = import_ref(pixart + "_diffusers").tensors;
  EXPECT_EQ(file.size(), folder.size());
  for (const NamedTensor& t : file) {
    const Tensor* same = find(folder, t.name);
    ASSERT_TRUE(same) << t.name;
    EXPECT_TRUE(at::equal(*same, t.tensor)) << t.name;
  }
}

/// One generator, and noise for twice the batch of which the first half is used: that of a program that duplicates the batch.
class NoiseOfBothHalves final : public Noise {
 public:
  Tensor draw(const Tensor& like, double, double) override {
    std::vector<int64_t> sizes = like.sizes().vec();
    sizes[0] *= 2;
    return at::randn(sizes, random_, at::TensorOptions().dtype(at::kFloat)).narrow(0, 0, like.size(0)).to(like.options());
  }

 private:
  at::Generator random_ = at::detail::createCPUGenerator(0);
};

/// An imported model, whose network runs under samplers of the test's.
class Walk {
 public:
  explicit Walk(const std::string& name) : stored_(open_stored(ref_path(name).string())) {
    Value root = Value::map();
    root.set("model", stored_.card.model);
    root.set("sample", stored_.card.sample);
    register_builtins(registry_);
    config_ = read_stored_configuration(registry_, root, name, {});
    pipeline_ = std::make_unique<Pipeline>(config_.model, Compute{}, StoredWeights{name, stored_.tensors, stored_.card.files});
  }
  /// x after every step. `null`: the null class. The first x is drawn from seed 7.
  std::vector<Tensor> operator()(const std::string& yaml, int64_t null) const {
    const at::NoGradGuard no_grad;
    SchedulerConfig c = read_scheduler(yaml);
    c.noise = config_.model.noise, c.parameterization = config_.model.parameterization;
    Condition condition{.classes = at::tensor({3, 7}, at::kLong)};
    condition.null = std::make_shared<Condition>(Condition{.classes = at::full({2}, null, at::kLong)});
    at::Generator seven = at::detail::createCPUGenerator(7);
    const Tensor z = at::randn({2, 4, 8, 8}, seven, at::TensorOptions().dtype(at::kFloat));
    NoiseOfBothHalves noise;
    return run(c, pipeline_->denoiser(), z, c.sigmas(), noise, condition).x;
  }
  /// The settings of sampling that the import gives.
  const SampleOptions& sample() const { return config_.sample; }

 private:
  Registry registry_;
  StoredModel stored_;
  Config config_;
  std::unique_ptr<Pipeline> pipeline_;
};

/// The first half of each state of a stored trajectory.
void expect_path(const std::vector<Tensor>& got, const Tensor& wanted, int64_t first, double share, const std::string& what) {
  ASSERT_EQ(int64_t(got.size()) + first, wanted.size(0)) << what;
  for (size_t k = 0; k < got.size(); ++k)
    expect_close(got[k], wanted[first + int64_t(k)].narrow(0, 0, 2), share, fmt::format("{}, step {}", what, k));
}

TEST(Dit, FollowsTheTrajectoriesOfDit) {
  BRUME_NEED_REF(dit + ".safetensors");
  const NamedTensors io = load_ref(dit + "_io.safetensors");
  const Walk walk(dit + ".safetensors");
  EXPECT_EQ(walk.sample().steps, 250);
  const std::string cfg = "guidance: [{type: cfg, scale: 3, channels: 3}]";
  expect_path(walk("sample: {sampler: {type: ddpm, variance: learned_range}, spacing: linspace, steps: 8, " + cfg + "}", 1000),
              *find(io, "traj.ddpm8"), 0, 1e-5, "DDPM");
  expect_path(walk("sample: {sampler: ddim, spacing: leading, steps: 8, " + cfg + "}", 1000), *find(io, "traj.ddim8"), 0, 1e-5, "DDIM");
}

TEST(Dit, FollowsTheOdeOfSit) {
  BRUME_NEED_REF(sit + ".safetensors");
  const NamedTensors io = load_ref(sit + "_io.safetensors");
  const Walk walk(sit + ".safetensors");
  expect_path(walk("sample: {sampler: {type: euler, time: flow, scale: flow}, spacing: {type: flow, s_min: 0, inclusive: false}, steps: 8, "
                   "guidance: [{type: cfg, scale: 2, channels: 3}]}",
                   10),
              *find(io, "traj.ode_euler9"), 1, 1e-5, "Euler");
  expect_path(walk("sample: {sampler: {type: heun, alpha: 0.5, time: flow, scale: flow}, spacing: {type: flow, s_min: 0, inclusive: "
                   "false}, steps: 4}",
                   10),
              *find(io, "traj.ode_midpoint5_nocfg"), 1, 1e-5, "midpoint");
  const std::vector<Tensor> adaptive = walk(
      "sample: {sampler: {type: rk45, rtol: 1.0e-5, atol: 1.0e-6}, spacing: flow, steps: 2, guidance: [{type: cfg, scale: 2, channels: "
      "3}]}",
      10);
  expect_close(adaptive.back(), (*find(io, "traj.ode_dopri5"))[2].narrow(0, 0, 2), 2e-4, "Dormand and Prince");
}

}  // namespace
}  // namespace brume::test
