// Trainings with every optimizer: one that is stopped and resumed writes the bits of one that is not.
#include <gtest/gtest.h>

#include "brume/config/yaml.h"
#include "brume/train/source.h"
#include "brume/weights/weights_file.h"
#include "train/autoencoder_support.h"

namespace brume::test {
namespace {

class ResumedOptimizer : public testing::TestWithParam<const char*> {};

TEST_P(ResumedOptimizer, GoesOnBitForBit) {
  const std::string yaml = fmt::format(
      "model:\n  image: {{channels: 1, height: 8, width: 8}}\n"
      "  network: {{type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4, attention_resolutions: []}}\n"
      "  conditioner: {{type: class_label, classes: 5}}\n"
      "train:\n  data: shapes\n  optimizer: {}\n  groups: [{{match: 'network.out.*', weight_decay: 0.1}}]\n  batch: 4\n  steps: 6\n"
      "  preview: {{count: 0}}\n  log_every: 1\ncompute: {{precision: fp32, threads: 1}}\n",
      GetParam());
  const TempFolder folder;
  Registry registry = builtins();
  const auto run = [&](const std::string& name, int64_t stop_at, const std::string& resume) {
    Value resolved;
    const Config config = read_training(registry, parse_yaml(yaml, "x.yaml"), "", &resolved);
    Trainer trainer(config, resolved, folder.file(name), resume);
    trainer.run([&] { return trainer.step() == stop_at; });
  };
  run("whole", -1, "");
  run("halves", 3, "");
  const auto tensors = [&](const std::string& name) { return load_tensors(folder.file(name)); };
  const NamedTensors half = tensors("halves/model.safetensors");
  run("halves", -1, folder.file("halves/training.safetensors"));
  bool moved = false;
  for (const char* file : {"/model.safetensors", "/training.safetensors"}) {
    const NamedTensors a = tensors(std::string("whole") + file), b = tensors(std::string("halves") + file);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(a[i].name == b[i].name && a[i].tensor.equal(b[i].tensor)) << a[i].name;
  }
  for (const NamedTensor& t : tensors("whole/model.safetensors")) moved = moved || !t.tensor.equal(*find(half, t.name));
  EXPECT_TRUE(moved);
}

INSTANTIATE_TEST_SUITE_P(All, ResumedOptimizer,
                         testing::Values("{type: lion, lr: 0.001, decay: one_cycle}", "{type: sgd, lr: 0.01, warmup: 2, decay: linear}",
                                         "{type: schedule_free, lr: 0.01, warmup: 2}", "{type: adafactor, relative_step: true, beta1: 0.9}",
                                         "{type: prodigy, d0: 1.0e-3}",
                                         "{type: muon, convolutions: true, by_adam: ['network.label_emb.*']}"),
                         [](const auto& info) {
                           const std::string yaml = info.param;
                           return yaml.substr(7, yaml.find(',') - 7);
                         });

}  // namespace
}  // namespace brume::test
