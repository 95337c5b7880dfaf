// Models of signals and of volumes: a data set of arrays, a training, a checkpoint and samples.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>

#include "brume/core/noise.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/weights/npz.h"
#include "brume/weights/weights_file.h"
#include "train/classifier_support.h"

namespace brume::test {
namespace {

constexpr const char* model = R"(
model:
  image: {{channels: 1, height: {}, width: {}}}
  network: {}
  noise: flow
  parameterization: flow
train:
  data: {{type: arrays, path: {}}}
  optimizer: {{type: adamw, lr: 0.004, warmup: 10}}
  objective: flow
  batch: 32
  steps: {}
  ema: {{decay: 0.98}}
  preview: {{count: 0}}
  log_every: 10
sample: {{sampler: ddim, steps: 12}}
compute: {{precision: fp32, threads: 1}}
)";

/// Trains, and returns samples of the weights in the file.
Tensor samples_of(const std::string& yaml, const TempFolder& folder, int64_t count) {
  train_into(yaml, folder.path() / "run");
  const ReadConfig read(yaml);
  const NamedTensors stored = load_tensors(folder.file("run/model.safetensors"));
  const Files none;
  const Pipeline pipeline(read.config.model, Compute{}, StoredWeights{"model.safetensors", stored, none});
  SampleRequest request;
  request.images.resize(size_t(count));
  request.batch = count;
  const Tensor together = sample_images(pipeline, request, read.config.sample);
  request.batch = 3;
  EXPECT_TRUE(sample_images(pipeline, request, read.config.sample).equal(together)) << "of any batch";
  return together;
}

/// The loss has fallen.
void expect_learned(const TempFolder& folder) {
  const auto lines = metrics_of(folder.path() / "run");
  EXPECT_LT(lines.back().at("loss").get<double>(), 0.8 * lines.front().at("loss").get<double>());
}

// Two kinds of signals of 8 numbers: all near 0.6 and rising, all near -0.6 and falling.
TEST(Ranks, TrainAndSampleAMixtureOfSignals) {
  const TempFolder folder;
  Tensor signals = at::zeros({64, 8});
  for (int64_t i = 0; i < 64; ++i) {
    const float sign = i % 2 ? 1 : -1;
    signals[i] = (at::arange(8, at::kFloat) * 0.05 + 0.4) * sign + 0.02 * float(i / 2 % 3 - 1);
  }
  write_npz(folder.file("signals.npz"), {{"signals", signals}});
  const Tensor x = samples_of(
      fmt::format(model, 1, 8, "{type: dit, width: 24, depth: 2, heads: 2, patch: 2}", folder.file("signals.npz"), 150), folder, 32);
  ASSERT_EQ(x.sizes(), at::IntArrayRef({32, 1, 1, 8}));
  EXPECT_TRUE(x.isfinite().all().item<bool>());
  expect_learned(folder);
}

// Volumes of 4 slices of 6x8, of which the lower half of each slice is light in the last two slices.
TEST(Ranks, TrainAndSampleVolumes) {
  const TempFolder folder;
  Tensor volumes = at::full({24, 1, 4, 6, 8}, -0.8);
  volumes.narrow(2, 2, 2).narrow(3, 3, 3).fill_(0.8);
  volumes = volumes * (1 - 0.2 * at::rand({24, 1, 1, 1, 1}));
  write_npz(folder.file("volumes.npz"), {{"volumes", volumes}});
  const std::string yaml =
      fmt::format(model, 24, 8, "{type: dit, width: 24, depth: 2, heads: 2, patch: 2, patch_height: 3, slices: 4, patch_slices: 2}",
                  folder.file("volumes.npz"), 100);
  const Tensor x = samples_of(yaml, folder, 5);
  ASSERT_EQ(x.sizes(), at::IntArrayRef({5, 1, 24, 8}));
  EXPECT_TRUE(x.isfinite().all().item<bool>());
  expect_learned(folder);
}

}  // namespace
}  // namespace brume::test
