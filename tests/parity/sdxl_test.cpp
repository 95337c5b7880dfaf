// Parity of SDXL with diffusers' pipelines and SGM's checkpoint (shared/refs2/sdxl, whose README gives the tolerances): the condition, one
// call of the U-Net, the first stage, trajectories from the directory and from one file.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "brume/core/autoencoder.h"
#include "brume/core/network.h"
#include "brume/diffusion/pipeline.h"
#include "brume/model.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

const std::string folder = "../refs2/sdxl/", directory = folder + "tiny_sdxl", one_file = folder + "tiny_sdxl_sgm.safetensors";
const std::string prompt = "a photograph of an astronaut riding a horse";

OpenOptions plain() {
  OpenOptions o;
  o.precision = "fp32";
  return o;
}

/// The checkpoint, whose tokenizer, heads and size are not in it.
Model single_file() {
  OpenOptions o = plain();
  o.import = {{"tokenizer", ref_path(directory + "/tokenizer").string()}, {"num_head_channels", "16"}, {"size", "128"}};
  return Model::open(ref_path(one_file).string(), o);
}

/// What a run passes through.
struct Walk {
  std::vector<Tensor> after;   ///< latents after each step, x0 + sigma noise
  std::vector<double> sigmas;  ///< of those
  Tensor image;
};

Walk walk(const Model& model, ImageRequest request) {
  Walk w;
  request.noise_order = "batch";
  request.progress = [&](const SampleProgress& p) {
    if (p.step.index > 0) w.after.push_back(p.step.x.clone()), w.sigmas.push_back(p.step.sigma);
    return true;
  };
  request.ended = [&](const Tensor& x) { w.after.push_back(x), w.sigmas.push_back(0); };
  w.image = model.sample(request);
  return w;
}

class Sdxl : public testing::Test {
 protected:
  void SetUp() override { BRUME_NEED_REF(directory + "/model_index.json"); }
  void read(const std::string& name) { wanted_ = load_tensors(ref_path(folder + name + ".safetensors").string()); }
  Tensor wanted(const std::string& name) const { return *find(wanted_, name); }
  /// The directory with the scheduler of a case.
  std::string with_scheduler(const std::string& name) {
    const nlohmann::json& scheduler = ref_json(folder + name + ".json").at("scheduler");
    fs::copy(ref_path(directory), folder_.path() / "model", fs::copy_options::recursive);
    fs::permissions(folder_.path() / "model", fs::perms::owner_all, fs::perm_options::add);
    nlohmann::json index = ref_json(directory + "/model_index.json");
    index["scheduler"] = {"diffusers", scheduler.at("cls")};
    const auto put = [&](const char* file, const nlohmann::json& content) {
      fs::remove(folder_.path() / "model" / file);
      std::ofstream(folder_.path() / "model" / file) << content.dump();
    };
    fs::permissions(folder_.path() / "model/scheduler", fs::perms::owner_all, fs::perm_options::add);
    put("model_index.json", index);
    put("scheduler/scheduler_config.json", scheduler.at("config"));
    return (folder_.path() / "model").string();
  }
  /// `preserving`: the program's latents keep their variance: x / sqrt(1 + sigma^2).
  void expect_run(const Walk& w, bool preserving = false) const {
    const Tensor steps = wanted("latents_steps");
    ASSERT_EQ(int64_t(w.after.size()), steps.size(0));
    for (int64_t k = 0; k < steps.size(0); ++k) {
      const double scale = preserving ? 1 / std::hypot(1, w.sigmas[size_t(k)]) : 1;
      expect_close(w.after[size_t(k)] * scale, steps[k], 1e-4, fmt::format("latents {}", k));
    }
    expect_close((w.image / 2 + 0.5).clamp(0, 1), wanted("image"), 2e-4, "image");
  }
  NamedTensors wanted_;
  TempFolder folder_;
};

TEST_F(Sdxl, TheConditionIsThatOfBothEncoders) {
  read("tiny_sdxl_components");
  const Model model = Model::open(ref_path(directory).string(), plain());
  const Condition c = model.condition({{.caption = prompt, .negative = "blurry"}, {.caption = prompt}});
  expect_close(c.context.slice(0, 0, 1), wanted("prompt_embeds"), 1e-4, "tokens");
  expect_close(c.vector.slice(0, 0, 1), wanted("pooled_prompt_embeds"), 1e-4, "pooled");
  ASSERT_TRUE(c.null);
  expect_close(c.null->context.slice(0, 0, 1), wanted("negative_prompt_embeds_blurry"), 1e-4, "tokens of the negative prompt");
  expect_close(c.null->vector.slice(0, 0, 1), wanted("negative_pooled_blurry"), 1e-4, "pooled of the negative prompt");
  EXPECT_EQ(c.null->context[1].abs().max().item<double>(), 0) << "an empty negative prompt is zeros";
  EXPECT_EQ(c.null->vector[1].abs().max().item<double>(), 0);
}

TEST_F(Sdxl, OneCallOfTheNetwork) {
  read("tiny_sdxl_components");
  const at::NoGradGuard no_grad;
  for (const Model& model : {Model::open(ref_path(directory).string(), plain()), single_file()}) {
    Condition c;
    c.context = wanted("context");
    c.vector = wanted("pooled");
    c.sizes = wanted("time_ids");
    const Tensor out = model.pipeline().network().forward(wanted("x"), wanted("t").to(at::kFloat), c, nullptr, {});
    expect_close(out, wanted("out"), 1e-4, "out");
  }
}

TEST_F(Sdxl, TheFirstStage) {
  read("tiny_sdxl_components");
  const at::NoGradGuard no_grad;
  const Model model = Model::open(ref_path(directory).string(), plain());
  expect_close(model.decode(wanted("vae_z") * 0.13025), wanted("vae_decode_of_z"), 1e-4, "decoded");
}

TEST_F(Sdxl, EulerWithAnEmptyNegativePrompt) {
  read("tiny_sdxl_euler5_cfg5_seed42");
  const ImageRequest request{.prompts = {prompt}, .seed = 42, .steps = 5, .cfg = 5};
  expect_run(walk(Model::open(ref_path(directory).string(), plain()), request));
}

TEST_F(Sdxl, OneFileIsTheDirectoryBitForBit) {
  const ImageRequest request{.prompts = {prompt}, .negatives = {"blurry"}, .seed = 42, .height = 64, .width = 96, .steps = 3, .cfg = 5};
  const Walk a = walk(Model::open(ref_path(directory).string(), plain()), request), b = walk(single_file(), request);
  EXPECT_TRUE(at::equal(a.image, b.image));
}

TEST_F(Sdxl, WithoutGuidance) {
  read("tiny_sdxl_euler4_nocfg_seed3");
  expect_run(walk(Model::open(ref_path(directory).string(), plain()),
                  {.prompts = {prompt}, .seed = 3, .height = 64, .width = 64, .steps = 4, .cfg = 1}));
}

TEST_F(Sdxl, SizesAndANegativePrompt) {
  const std::string name = "tiny_sdxl_dpmpp2m_karras6_neg_sizes_seed7";
  read(name);
  ImageRequest request{
      .prompts = {prompt}, .negatives = {"blurry, low quality"}, .seed = 7, .height = 96, .width = 64, .steps = 6, .cfg = 7};
  request.sizes = SizeIds{300, 200, 10, 20, 96, 64};
  const Model model = Model::open(with_scheduler(name), plain());
  const Walk run = walk(model, request);
  expect_run(run, true);
  request.negative_sizes = SizeIds{300, 200, 10, 21, 96, 64};
  EXPECT_FALSE(at::equal(walk(model, request).image, run.image));
  request.negative_sizes = request.sizes;
  EXPECT_TRUE(at::equal(walk(model, request).image, run.image));
}

TEST_F(Sdxl, AnImageToBeginWith) {
  read("tiny_sdxl_img2img_euler6_s0.5_seed3");
  ImageRequest request{.prompts = {prompt}, .seed = 3, .height = 64, .width = 64, .steps = 6, .cfg = 5};
  request.image = wanted("init_image") * 2 - 1;
  request.strength = 0.5;
  expect_run(walk(Model::open(ref_path(directory).string(), plain()), request));
}

/// A small request of one image, and its error.
ImageRequest small() { return {.prompts = {prompt}, .seed = 3, .height = 64, .width = 64, .steps = 5, .cfg = 3}; }
std::string said(const Model& model, const ImageRequest& request) {
  try {
    model.sample(request);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST_F(Sdxl, AModelThatRefinesItselfIsOneRun) {
  const Model model = Model::open(ref_path(directory).string(), plain());
  ImageRequest request = small();
  const Tensor whole = model.sample(request);
  int64_t steps = 0;
  request.refiner = ref_path(directory).string();
  request.progress = [&](const SampleProgress& p) { return p.step.index == steps++ && p.step.count == 5; };
  EXPECT_TRUE(at::equal(model.sample(request), whole)) << "Euler's method keeps no history";
  EXPECT_EQ(steps, 5);
  request.progress = {};
  request.refine_from = 0.01;
  EXPECT_NE(said(model, request).find("a refiner from 0.01 on leaves no step to the base model of 5 steps"), std::string::npos);
  request.spacing = "karras", request.refine_from = 0.95;
  EXPECT_EQ(said(model, request), "") << "the last level is at training time 0";
  request.like = "comfyui";
  EXPECT_NE(said(model, request).find("a refiner from 0.95 on leaves no step to the refiner of 5 steps"), std::string::npos)
      << "of the steps";
  request.refiner.clear(), request.like.clear();
  EXPECT_NE(said(model, request).find("refine_from: has no effect without refiner"), std::string::npos);
}

TEST_F(Sdxl, VariationsBlendTheNoise) {
  const Model model = Model::open(ref_path(directory).string(), plain());
  ImageRequest request = small();
  const Tensor plain_image = model.sample(request);
  request.variation_seed = 9;
  request.variation = 0;
  EXPECT_TRUE(at::equal(model.sample(request), plain_image));
  request.variation = 0.2;
  EXPECT_FALSE(at::equal(model.sample(request), plain_image));
  request.variation = 1;
  const Tensor other = model.sample(request);
  request = small();
  request.seed = 9;
  expect_close(other, model.sample(request), 1e-4, "the variation seed's image");
}

TEST_F(Sdxl, ASecondPassIsLarger) {
  const Model model = Model::open(ref_path(directory).string(), plain());
  for (const char* of : {"pixels", "latents"}) {
    ImageRequest request = small();
    request.hires = 1.5;
    request.hires_of = of;
    int64_t done = 0, total = 0;
    request.progress = [&](const SampleProgress& p) { return done = p.done, total = p.total, true; };
    EXPECT_EQ(model.sample(request).sizes(), at::IntArrayRef({1, 3, 96, 96})) << of;
    EXPECT_EQ(done, total);
    EXPECT_EQ(total, 10);
  }
}

TEST_F(Sdxl, PromptsThatChange) {
  const Model model = Model::open(ref_path(directory).string(), plain());
  const auto image = [&](const std::string& text, const std::string& negative = "") {
    ImageRequest request = small();
    request.prompts = {text};
    request.negatives = {negative};
    request.prompt_changes = true;
    return model.sample(request);
  };
  const Tensor a = image("a red circle"), b = image("a green star");
  EXPECT_TRUE(at::equal(image("[a red circle|a red circle]"), a));
  EXPECT_TRUE(at::equal(image("[a red circle:a green star:5]"), a)) << "changes when the run is over";
  EXPECT_TRUE(at::equal(image("[a red circle:a green star:0.0]"), b));
  const Tensor half = image("[a red circle:a green star:0.5]");
  EXPECT_FALSE(at::equal(half, a) || at::equal(half, b));
  EXPECT_TRUE(at::equal(image("a red circle", "[x::0.0]"), a)) << "an empty negative prompt is zeros";
  expect_close(image("a red circle :0.5 AND a red circle :0.5"), a, 1e-3, "two halves of one prompt");
  EXPECT_FALSE(at::equal(image("a red circle AND a green star"), a));
}

TEST_F(Sdxl, PerpNegHasTheEmptyPromptAsAThirdCondition) {
  const Model model = Model::open(ref_path(directory).string(), plain());
  const auto image = [&](const std::string& guidance, const std::string& negative, bool changes = false) {
    ImageRequest request = small();
    request.cfg.reset();
    request.settings = {"sample.guidance=" + guidance};
    request.negatives = {negative};
    request.prompt_changes = changes;
    return model.sample(request);
  };
  const std::string perp_neg = "[{type: perp_neg, scale: 3}]", cfg = "[{type: cfg, scale: 3}]";
  const Tensor plain_cfg = image(cfg, ""), guided = image(perp_neg, "a green star");
  EXPECT_TRUE(at::equal(image(perp_neg, ""), plain_cfg)) << "without a negative prompt it is cfg";
  expect_close(image("[{type: perp_neg, scale: 3, negative_scale: 0}]", "a green star"), plain_cfg, 1e-4, "cfg from the empty prompt");
  EXPECT_FALSE(at::equal(guided, plain_cfg) || at::equal(guided, image(cfg, "a green star")));
  expect_close(image(perp_neg, "[a green star|a green star]", true), guided, 1e-4, "a negative prompt that changes into itself");
}

TEST_F(Sdxl, Wildcards) {
  const Model model = Model::open(ref_path(directory).string(), plain());
  folder_.file("cards/colour.txt", "red\n# none\n\nblue\n");
  folder_.file("cards/thing.txt", "__colour__ star\n");
  folder_.file("cards/loop.txt", "__loop__\n");
  ImageRequest request{.prompts = {"a __thing__ and a_b__"}, .count = 20};
  request.wildcards = (folder_.path() / "cards").string();
  int64_t red = 0;
  const auto all = model.annotations(request);
  for (const Annotation& x : all) {
    EXPECT_TRUE(x.caption == "a red star and a_b__" || x.caption == "a blue star and a_b__") << x.caption;
    red += x.caption == "a red star and a_b__";
  }
  EXPECT_TRUE(red > 3 && red < 17) << red;
  request.negatives = {"__colour__"};
  int64_t same = 0;
  for (const Annotation& x : model.annotations(request)) same += x.caption.find(x.negative) != x.caption.npos;
  EXPECT_TRUE(same > 3 && same < 17) << same << ": a negative prompt draws its own line";
  request.first = 7, request.count = 1;
  EXPECT_EQ(model.annotations(request)[0].caption, all[7].caption) << "image 7 alone";
  for (const auto& [name, error] : {std::pair("none", "none.txt' for __none__"),
                                    {"loop", "without end"},
                                    {"../x", "outside the folder"},
                                    {"colours", "colour.txt'?"}}) {
    request.prompts = {"__" + std::string(name) + "__"};
    EXPECT_NE(said(model, request).find(error), std::string::npos) << said(model, request);
  }
}

}  // namespace
}  // namespace brume::test
