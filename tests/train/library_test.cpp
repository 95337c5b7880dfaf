// The front door: brume/model.h and Trainer::from_yaml, as a program that embeds brume uses them.
#include "brume/model.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/config/plugin_loader.h"
#include "brume/config/registry.h"
#include "brume/diffusion/options.h"
#include "brume/train/trainer.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const char* const exact = "model: {image: {channels: 1, height: 4, width: 6}, network: gaussian, parameterization: x0}\n";
const char* const small =
    "model:\n  image: {height: 8, width: 8}\n  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}\n"
    "  conditioner: {type: class_label, classes: 5, dropout: 0.2}\n  parameterization: v\n"
    "train: {data: shapes, batch: 4, steps: 4, preview: {count: 0}}\nsample: {steps: 4}\ncompute: {threads: 1, precision: fp32}\n";

/// The text of the ConfigError that `run` throws.
template <class F>
std::string error_of(const F& run) {
  try {
    run();
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

class Library : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TempFolder;
    const auto trainer = Trainer::from_yaml(small, {.directory = folder_->file("m")});
    std::vector<int64_t> steps;
    ASSERT_TRUE(trainer->run({.progress = [&](const TrainProgress& p) { steps.push_back(p.step); }}));
    ASSERT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4}));
    folder_->file("exact.yaml", exact);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static Model trained() { return Model::open(folder_->file("m"), {.precision = "fp32"}); }
  inline static TempFolder* folder_ = nullptr;
};

TEST_F(Library, SamplesWhatIsAsked) {
  const Model model = trained();
  EXPECT_EQ(model.shape(), (ImageShape{3, 8, 8}));
  EXPECT_EQ(model.classes().size(), 5u);
  const Tensor images = model.sample({.classes = {"star", "#1"}, .count = 3, .seed = 7, .steps = 3, .cfg = 2});
  EXPECT_EQ(images.sizes(), (std::vector<int64_t>{3, 3, 8, 8}));
  EXPECT_TRUE(at::equal(images, model.sample({.classes = {"star", "#1"}, .count = 3, .seed = 7, .steps = 3, .cfg = 2, .batch = 1})));
  EXPECT_FALSE(at::equal(images, model.sample({.classes = {"star", "#1"}, .count = 3, .seed = 8, .steps = 3, .cfg = 2})));
  const Tensor last = model.sample({.classes = {"star"}, .count = 1, .first = 2, .seed = 7, .steps = 3, .cfg = 2});
  EXPECT_TRUE(at::equal(images.narrow(0, 2, 1), last)) << "a run in pieces";
  EXPECT_EQ(model.sampling({.settings = {"sample.sampler={type: ddim, eta: 1}", "sample.steps=9"}}).steps, 9);
}

TEST_F(Library, TrainsForEpochs) {
  std::string idx("\0\0\x08\x03\0\0\0\x0a\0\0\0\x08\0\0\0\x08", 16);  // ten images of 8 by 8
  idx += std::string(640, '\x40');
  const auto settings = [&](const std::string& steps) {
    return "model:\n  image: {channels: 1, height: 8, width: 8}\n"
           "  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}\n  parameterization: v\n"
           "train: {data: {type: idx, images: " +
           std::string(folder_->file("images.idx", idx)) + "}, batch: 4, preview: {count: 0}, " + steps +
           "}\ncompute: {threads: 1, precision: fp32}\n";
  };
  std::vector<int64_t> steps;
  const auto trainer = Trainer::from_yaml(settings("epochs: 2"), {.directory = folder_->file("epochs")});
  ASSERT_TRUE(trainer->run({.progress = [&](const TrainProgress& p) { steps.push_back(p.step); }}));
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 5}));
  EXPECT_NE(error_of([&] {
              Trainer::from_yaml(settings("epochs: 2, steps: 3"), {.directory = folder_->file("both")});
            }).find("give steps or epochs, not both"),
            std::string::npos);
  std::string endless = small;
  endless.replace(endless.find("steps: 4,"), 9, "epochs: 1,");
  EXPECT_EQ(error_of([&] { Trainer::from_yaml(endless, {.directory = folder_->file("endless")}); }),
            "train.epochs: the data set makes images without end; give train.steps instead");
}

TEST_F(Library, TellsOfItsProgress) {
  const Model model = trained();
  std::vector<int64_t> done, firsts;
  std::vector<Tensor> made;
  Tensor preview;
  ImageRequest request{.count = 3, .steps = 2, .batch = 2};
  request.progress = [&](const SampleProgress& p) {
    done.push_back(p.done);
    EXPECT_EQ(p.total, 6);
    if (p.done == 4) preview = p.preview();
    return true;
  };
  request.made = [&](int64_t first, const Tensor& images) { firsts.push_back(first), made.push_back(images); };
  const Tensor images = model.sample(request);
  EXPECT_EQ(done, (std::vector<int64_t>{2, 4, 5, 6}));
  EXPECT_EQ(preview.sizes(), (std::vector<int64_t>{2, 3, 8, 8}));
  EXPECT_EQ(firsts, (std::vector<int64_t>{0, 2}));
  EXPECT_TRUE(at::equal(at::cat(made), images));
}

TEST_F(Library, IsCancelledByItsCallback) {
  const Model model = trained();
  int64_t made = 0, calls = 0;
  ImageRequest request{.count = 6, .steps = 2, .batch = 2};
  request.made = [&](int64_t, const Tensor& images) { made += images.size(0); };
  request.progress = [&](const SampleProgress&) { return ++calls < 4; };  // in the second batch
  EXPECT_THROW(model.sample(request), Interrupted);
  EXPECT_EQ(made, 2);
  EXPECT_EQ(calls, 4);
  request.progress = nullptr;
  EXPECT_EQ(model.sample(request).size(0), 6) << "the model is as it was";
}

TEST_F(Library, GivesItsParts) {
  std::shared_ptr<const Denoiser> denoiser;
  Condition condition;
  Tensor images;
  {
    const Model model = Model::open(folder_->file("exact.yaml"));
    images = model.sample({.count = 2, .seed = 3});
    EXPECT_TRUE(at::equal(model.decode(model.encode(images)), images));
    denoiser = model.denoiser();
    condition = model.condition({{}, {}});
  }
  EXPECT_EQ(denoiser->denoise(images, 1.5, condition).x0.sizes(), images.sizes()) << "it outlives the model";
  EXPECT_EQ(trained().denoiser({.cfg = 3})->denoise(at::zeros({1, 3, 8, 8}), 1, trained().condition({{2}})).x0.size(0), 1);
}

TEST_F(Library, WarnsItsCaller) {
  std::vector<std::string> warnings;
  testing::internal::CaptureStderr();
  const Model model = Model::open(folder_->file("exact.yaml"), {.warn = [&](const std::string& text) { warnings.push_back(text); }});
  model.sample({.count = 1, .settings = {"sample.told_time=exact"}});
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "the library prints nothing";
  ASSERT_FALSE(warnings.empty());
  EXPECT_NE(warnings.back().find("told_time is now timestep_rounding"), std::string::npos) << warnings.back();
}

class Still final : public Sampler {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit Still(const Options&) {}
  SamplerTraits traits() const override { return {}; }
  Tensor sample(const Denoiser&, Tensor x, const std::vector<double>&, Run&) const override { return x * 0; }
};

TEST_F(Library, TakesTheRegistryOfItsCaller) {
  Registry registry;
  register_builtins(registry);
  registry.add<Sampler, Still>("still", "gives nothing");
  const Model model = Model::open(folder_->file("exact.yaml"), {.registry = &registry});
  EXPECT_TRUE(at::equal(model.sample({.count = 1, .sampler = "still"}), at::zeros({1, 1, 4, 6})));
  const std::string unknown = error_of([] { Model::open(folder_->file("exact.yaml")).sample({.sampler = "still"}); });
  EXPECT_TRUE(unknown.starts_with("sampler still: sample.sampler: unknown sampler 'still'")) << unknown;
}

TEST_F(Library, SaysWhatIsWrong) {
  const auto opened = [](const std::string& name) { return without(error_of([&] { Model::open(folder_->file(name)); }), *folder_); };
  EXPECT_EQ(opened("absent.safetensors"), "absent.safetensors: cannot be opened: No such file or directory");
  folder_->file("begun/config.yaml", "model: {}\n");
  EXPECT_EQ(opened("begun"), "begun: is the directory of a training that has written no model.safetensors yet");
  folder_->file("empty/x.txt", "");
  EXPECT_NE(opened("empty"), "");
  const Model model = trained();
  EXPECT_EQ(error_of([&] { model.sample({.steps = 0}); }), "steps 0: sample: steps = 0 is outside [1, 1000000]");
  EXPECT_EQ(error_of([&] { model.sample({.classes = {"cirlce"}}); }), "classes: no class 'cirlce'; did you mean 'circle'?");
  EXPECT_EQ(error_of([&] { model.sample({.prompts = {"a star"}}); }),
            "prompts: this model is not asked in words; classes names what it makes");
  EXPECT_EQ(error_of([&] {
              model.sample({.prompts = {"a star"}, .names = {{"prompts", "--prompt"}, {"classes", "--classes"}}});
            }),
            "--prompt: this model is not asked in words; --classes names what it makes");
  EXPECT_EQ(error_of([&] { model.sample({.strength = 0.5}); }), "strength: there is no image to start from; image names one");
  EXPECT_EQ(error_of([&] { Model::open(folder_->file("m"), {.settings = {"model.network.channels=16"}}); }),
            "settings model.network.channels=16: " + folder_->file("m/model.safetensors") +
                " has model.network.channels = 8; a checkpoint's model cannot be changed");
  EXPECT_EQ(error_of([&] { Trainer::from_yaml(small, {.directory = folder_->file("m")}); }),
            folder_->file("m") + ": holds a training already; resume it, overwrite it, or name another directory");
}

TEST_F(Library, StopsATrainingAndResumesIt) {
  const std::string part = folder_->file("part");
  auto first = Trainer::from_yaml(small, {.directory = part});
  EXPECT_FALSE(first->run({.stop = [&] { return first->step() == 2; }}));
  first.reset();  // it locks the directory
  const auto rest = Trainer::from_yaml(small, {.directory = part, .resume = part + "/training.safetensors"});
  EXPECT_TRUE(rest->run(TrainCallbacks{}));
  const Model resumed = Model::open(part, {.precision = "fp32"});
  EXPECT_TRUE(at::equal(resumed.sample({.count = 2}), trained().sample({.count = 2}))) << "bit for bit";
}

}  // namespace
}  // namespace brume::test
