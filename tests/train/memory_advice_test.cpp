// Sampling and training without enough memory name a batch that fits.
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <new>

#include "brume/core/guidance.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/train/trainer.h"
#include "classifier_support.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

/// Runs out of memory if it is called with more than `most` images.
class Narrow final : public Guidance {
 public:
  explicit Narrow(int64_t most) : most_(most) {}
  std::shared_ptr<const Denoiser> wrap(std::shared_ptr<const Denoiser> inner, const GuidedModel&) const override {
    return std::make_shared<Inner>(std::move(inner), most_);
  }

 private:
  class Inner final : public Denoiser {
   public:
    Inner(std::shared_ptr<const Denoiser> inner, int64_t most) : inner_(std::move(inner)), most_(most) {}
    Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
      if (x.size(0) > most_) at::empty({int64_t(1) << 60});
      return inner_->denoise(x, sigma, condition);
    }

   private:
    std::shared_ptr<const Denoiser> inner_;
    int64_t most_;
  };
  int64_t most_;
};

/// Runs out of memory at the fourth batch of more than `most` images.
class NarrowObjective final : public Objective {
 public:
  NarrowObjective(std::shared_ptr<const Objective> inner, int64_t most) : inner_(std::move(inner)), most_(most) {}
  Tensor loss(const TrainableModel& model, const Tensor& x0, const Condition& condition, brume::Training& training,
              at::Generator& random) const override {
    if (x0.size(0) > most_ && ++wide_ > 3) throw std::bad_alloc();
    return inner_->loss(model, x0, condition, training, random);
  }
  std::vector<Weight> memory(const NoiseSchedule& schedule) const override { return inner_->memory(schedule); }

 private:
  std::shared_ptr<const Objective> inner_;
  int64_t most_;
  mutable int wide_ = 0;
};

std::string sampling(int64_t most, int64_t batch, const std::string& noise_order = "per_image") {
  ReadConfig read(
      "model: {image: {channels: 1, height: 4, width: 6}, network: gaussian, parameterization: x0, noise: cosine}\n"
      "sample: {steps: 2, noise_order: " +
      noise_order + "}\n");
  const Pipeline pipeline(read.config.model, Compute{});
  read.config.sample.guidance.push_back(std::make_shared<Narrow>(most));
  SampleRequest request;
  request.images.resize(8);
  request.batch = batch;
  const std::string text = error_of([&] { sample_images(pipeline, request, read.config.sample); });
  const size_t from = text.find(" for "), to = text.find(" bytes");  // LibTorch's number
  return from == std::string::npos || to == std::string::npos ? text : text.substr(0, from) + text.substr(to + 6);
}

TEST(MemoryAdvice, SamplingNamesABatch) {
  EXPECT_EQ(sampling(8, 8), "no error");
  EXPECT_EQ(sampling(3, 8), "there is not enough memory to sample 8 images at once of 6x4: batches of 2 fit");
  EXPECT_EQ(
      sampling(0, 8),
      "there is not enough memory to sample 8 images at once of 6x4: fewer images per batch, smaller images or a smaller model need less");
  EXPECT_EQ(sampling(0, 1), "there is not enough memory to sample 1 image of 6x4: smaller images or a smaller model need less");
  EXPECT_EQ(
      sampling(3, 8, "batch"),
      "there is not enough memory to sample 8 images at once of 6x4: fewer images per batch, smaller images or a smaller model need less");
}

TEST(MemoryAdvice, TrainingNamesABatchAndSaves) {
  const auto training = [](int64_t most) {
    const TempFolder folder;
    ReadConfig read(
        "model: {image: {channels: 1, height: 8, width: 8}, network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}}\n"
        "train: {data: shapes, batch: 8, steps: 6, preview: {count: 0}, workers: 0, checkpoint_every: 2}\n");
    read.config.train->objective = std::make_shared<NarrowObjective>(read.config.train->objective, most);
    Trainer trainer(read.config, read.resolved, folder.path() / "run");
    const std::string text = error_of([&] { trainer.run(nullptr); });
    EXPECT_EQ(trainer.saved_step(), most < 8 ? 3 : 6);
    for (const Weight& w : trainer.weights()) EXPECT_TRUE(most == 8 || !w.tensor.grad().defined()) << w.name;
    return text;
  };
  EXPECT_EQ(training(8), "no error");
  EXPECT_EQ(training(3), "there is not enough memory to train on 8 images at once: train.batch: 2 fits");
}

}  // namespace
}  // namespace brume::test
