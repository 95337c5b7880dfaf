// Two processes train as one that computes two parts does: weights, averages, optimizers and memories have the same bits.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <set>

#include "brume/config/yaml.h"
#include "brume/train/trainer.h"
#include "brume/weights/weights_file.h"
#include "support/small_trainings.h"
#include "train/autoencoder_support.h"
#include "world_support.h"

namespace brume::test {
namespace {

const std::string diffusion = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [4], heads: 2, groups: 8, dropout: 0.2}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
  noise: {type: linear, timesteps: 20}
train:
  data: {type: shapes}
  preview: {count: 0}
compute: {precision: fp32, threads: 1}
sample: {sampler: ddim, steps: 4}
)";

using Sets = std::vector<std::string>;

Value configuration(const std::string& yaml, const Sets& sets) {
  Value root = parse_yaml(yaml, "x.yaml");
  for (const std::string& set : {std::string("train.batch=8"), std::string("train.steps=6"), std::string("train.workers=0")})
    apply_override(root, set);
  for (const std::string& set : sets) apply_override(root, set);
  return root;
}

/// Trains in a world, and returns what each process threw.
std::vector<std::string> train(int64_t processes, const std::string& yaml, const Sets& sets, const std::string& directory,
                               const std::string& resume = "", int64_t stop_at = -1) {
  const Value root = configuration(yaml, sets);
  const auto one = [&](const std::shared_ptr<World>& world) {
    const ReadConfig read(root);
    Trainer trainer(read.config, read.resolved, directory, resume, no_models(), false, world);
    const bool last = world->rank() == world->size() - 1;
    trainer.run([&] { return last && trainer.step() + (world->size() > 1) == stop_at; });
  };
  if (processes > 1) return in_world(processes, one);
  one(world_of_one());
  return {""};
}

std::map<std::string, Tensor> state(const std::string& directory) {
  std::map<std::string, Tensor> all;
  for (const NamedTensor& t : load_tensors(directory + "/training.safetensors")) all.emplace(t.name, t.tensor);
  return all;
}

void expect_equal(const std::map<std::string, Tensor>& a, const std::map<std::string, Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(b.contains(name) && tensor.equal(b.at(name))) << name;
}

/// A name, a configuration, and what is changed in it.
struct Case {
  const char* name;
  const std::string* yaml;
  Sets sets;
};

class TwoProcesses : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (world_backend().empty()) GTEST_SKIP() << "this build has no gloo";
  }
};

TEST_P(TwoProcesses, TrainAsTwoPartsDo) {
  const TempFolder folder;
  Sets parts = GetParam().sets;
  parts.push_back("train.accumulate=2");
  train(1, *GetParam().yaml, parts, folder.file("parts"));
  EXPECT_EQ(train(2, *GetParam().yaml, GetParam().sets, folder.file("world")), std::vector<std::string>(2));
  expect_equal(state(folder.file("parts")), state(folder.file("world")));
}

const std::string learned = "model.variance=learned_range";
INSTANTIATE_TEST_SUITE_P(
    All, TwoProcesses,
    testing::Values(
        Case{"simple", &diffusion, {"train.objective={type: simple, time: low_discrepancy, noise: {offset: 0.1}}"}},
        Case{"simple_bf16", &diffusion, {"compute.precision=bf16"}},
        Case{"loss_second_moment",
             &diffusion,
             {"train.objective={type: simple, time: {type: loss_second_moment, history: 1}}", "train.steps=12", "model.noise.timesteps=4"}},
        Case{"hybrid", &diffusion, {"train.objective=hybrid", learned}}, Case{"vlb", &diffusion, {"train.objective=vlb", learned}},
        Case{"flow", &diffusion, {"train.objective=flow", "model.noise=flow", "model.parameterization=flow"}},
        Case{"edm", &diffusion, {"train.objective=edm", "model.noise=edm", "model.parameterization=edm"}},
        Case{"edm2", &diffusion, {"train.objective=edm2", "model.noise=edm", "model.parameterization=edm"}},
        Case{"consistency", &diffusion, {"train.objective=consistency", "model.noise=edm", "model.parameterization=consistency"}},
        Case{"classifier", &small_classifier, {}}, Case{"autoencoder", &small_autoencoder, {}},
        Case{"adversarial",
             &small_autoencoder,
             {"train.loss.adversarial={weight: 0.5, channels: 8, layers: 1, start: 2}", "train.discriminator={optimizer: adam}"}},
        Case{"codebook",
             &small_autoencoder,
             {"autoencoder.network={type: vq, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, latent_channels: 2, "
              "codes: 16, codebook: ema, restart_after: 2}"}}),
    [](const auto& info) { return info.param.name; });

class Sharded : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (world_backend().empty()) GTEST_SKIP() << "this build has no gloo";
  }
};

TEST_P(Sharded, TrainsAsUnsharded) {
  const TempFolder folder;
  const Sets sets{"train.optimizer=" + std::string(GetParam()), "train.ema={type: power}"};
  Sets sharded = sets, again = sets;
  sharded.push_back("train.shard=optimizer");
  train(2, diffusion, sets, folder.file("whole"));
  EXPECT_EQ(train(2, diffusion, sharded, folder.file("sharded"), "", 3), std::vector<std::string>(2));
  EXPECT_EQ(train(2, diffusion, sharded, folder.file("sharded"), folder.file("sharded/training.safetensors")), std::vector<std::string>(2));
  expect_equal(state(folder.file("whole")), state(folder.file("sharded")));
}
INSTANTIATE_TEST_SUITE_P(All, Sharded,
                         testing::Values("{type: adamw, lr: 0.01, clip: 0.1}", "{type: muon, convolutions: true}",
                                         "{type: schedule_free, lr: 0.01}"),
                         [](const auto& info) {
                           const std::string yaml = info.param;
                           return yaml.substr(7, yaml.find(',') - 7);
                         });

class WorldTraining : public testing::Test {
 protected:
  void SetUp() override {
    if (world_backend().empty()) GTEST_SKIP() << "this build has no gloo";
  }
};

TEST_F(WorldTraining, GoesOnWithAnotherNumberOfProcesses) {
  const TempFolder folder;
  const std::string run = folder.file("moved"), file = run + "/training.safetensors";
  train(1, diffusion, {"train.accumulate=2"}, folder.file("whole"));
  EXPECT_EQ(train(2, diffusion, {}, run, "", 2), std::vector<std::string>(2));
  train(1, diffusion, {}, run, file, 4);
  EXPECT_EQ(train(2, diffusion, {"train.accumulate=2"}, run, file), std::vector<std::string>(2));
  expect_equal(state(folder.file("whole")), state(run));
}

TEST_F(WorldTraining, RefusesProcessesThatDiffer) {
  const TempFolder folder;
  const auto errors = in_world(2, [&](const std::shared_ptr<World>& world) {
    const ReadConfig read(configuration(diffusion, {fmt::format("train.optimizer={{type: adamw, lr: 0.0{}}}", world->rank() + 1)}));
    Trainer(read.config, read.resolved, folder.file("run"), "", no_models(), false, world);
  });
  for (const std::string& error : errors)
    EXPECT_NE(error.find("train.optimizer.lr is 0.01 on rank 0 and 0.02 on rank 1"), std::string::npos) << error;
  EXPECT_FALSE(std::filesystem::exists(folder.file("run/config.yaml")));
}

TEST_F(WorldTraining, RefusesABatchThatCannotBeDivided) {
  const TempFolder folder;
  const auto errors = train(2, diffusion, {"train.batch=9"}, folder.file("run"));
  for (const std::string& error : errors)
    EXPECT_NE(error.find("train.batch = 9 cannot be divided by 2 processes"), std::string::npos) << error;
}

TEST_F(WorldTraining, FourProcessesAreNearTheWholeBatch) {
  const TempFolder folder;
  const Sets sets{"train.optimizer={type: sgd, lr: 0.01}"};
  train(1, diffusion, sets, folder.file("whole"));
  EXPECT_EQ(train(4, diffusion, sets, folder.file("world")), std::vector<std::string>(4));
  const auto whole = state(folder.file("whole")), world = state(folder.file("world"));
  for (const auto& [name, tensor] : whole) {
    if (!name.starts_with("weights.")) continue;
    EXPECT_LT((tensor - world.at(name)).norm().item<double>(), 1e-5 * (1 + tensor.norm().item<double>())) << name;
  }
}

}  // namespace
}  // namespace brume::test
