// T2I-Adapter against TencentARC's modules (Adapter and Adapter_light of the branch SD, Adapter_XL of main), whose weights are those made
// here, and its laws: nothing added at strength 0 and by zero weights; the names of diffusers give the same bits; an image does not depend
// on its batch.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>

#include "brume/core/control.h"
#include "brume/model.h"
#include "brume/weights/safetensors.h"
#include "support/expect_close.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

/// Element j of the t-th tensor by name is cos(0.37 j + 1.1 t) / sqrt(inputs per output).
NamedTensors filled(const Shapes& shapes) {
  NamedTensors all;
  for (const auto& [name, shape] : shapes) {
    int64_t count = 1;
    for (const int64_t s : shape) count *= s;
    const double inputs = shape.size() > 1 ? double(count / shape[0]) : 16;
    const at::Tensor j = at::arange(count, at::kDouble) * 0.37 + 1.1 * double(all.size());
    all.push_back({name, (j.cos() / std::sqrt(inputs)).view(shape).to(at::kFloat)});
  }
  return all;
}

void add(Shapes& shapes, const std::string& name, int64_t in, int64_t out, int64_t kernel) {
  shapes[name + ".weight"] = {out, in, kernel, kernel};
  shapes[name + ".bias"] = {out};
}

struct Kind {
  int64_t input, kernel;
  std::vector<int64_t> widths;
  bool old = false;  ///< with convolutions on every way, and to halve
  int64_t blocks = 2;
};

Shapes full(const Kind& k) {
  Shapes s;
  add(s, "conv_in", k.input, k.widths[0], 3);
  for (int64_t i = 0; i < std::ssize(k.widths); ++i)
    for (int64_t b = 0; b < k.blocks; ++b) {
      const int64_t out = k.widths[size_t(i)], in = b == 0 && i > 0 ? k.widths[size_t(i - 1)] : out;
      const std::string name = fmt::format("body.{}", i * k.blocks + b);
      if (k.old || in != out) add(s, name + ".in_conv", in, out, k.kernel);
      if (k.old) add(s, name + ".skep", out, out, k.kernel);
      if (k.old && b == 0 && i > 0) add(s, name + ".down_opt.op", in, in, 3);
      add(s, name + ".block1", out, out, 3);
      add(s, name + ".block2", out, out, k.kernel);
    }
  return s;
}

Shapes light(int64_t input, const std::vector<int64_t>& widths) {
  Shapes s;
  for (size_t i = 0; i < widths.size(); ++i) {
    const std::string name = fmt::format("body.{}", i);
    add(s, name + ".in_conv", i > 0 ? widths[i - 1] : input, widths[i] / 4, 1);
    add(s, name + ".out_conv", widths[i] / 4, widths[i], 1);
    for (int b = 0; b < 2; ++b)
      for (const char* conv : {"block1", "block2"}) add(s, fmt::format("{}.body.{}.{}", name, b, conv), widths[i] / 4, widths[i] / 4, 3);
  }
  return s;
}

struct Wanted {
  double sum, size;  ///< of the values, of their absolutes
  std::vector<double> first;
};

class T2IAdapterFile : public testing::Test {
 protected:
  std::shared_ptr<const OpenControl> open(const NamedTensors& tensors, bool xl) {
    const std::string path = folder_.file(fmt::format("{}.safetensors", files_++));
    write_safetensors(path, tensors);
    network_ =
        create_deferred<Network>(builtins(), parse_yaml(fmt::format("{{type: unet, channels: 32, multipliers: {}, blocks: 1, heads: 4, "
                                                                    "attention_resolutions: [8, 4], transformer: {{depth: [1]}}}}",
                                                                    xl ? "[1, 2, 4]" : "[1, 2, 2]"),
                                                        "test"))
            .make({.input = {4, xl ? 16 : 8, xl ? 16 : 8}, .out_channels = 4, .context_width = 24});
    return make<Control>(fmt::format("{{type: t2i_adapter, file: '{}'}}", path))
        ->open({.network = *network_, .latent = {4, 8, 8}, .context_width = 24, .ratio = 8});
  }
  static Tensor image(int64_t side) {
    return ((at::arange(3 * side * side, at::kDouble) * 0.013).sin() * 0.5 + 0.5).view({1, 3, side, side}).to(at::kFloat);
  }
  static void expect(const std::vector<Tensor>& features, const std::vector<Wanted>& wanted) {
    ASSERT_EQ(features.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Tensor f = features[i].contiguous().to(at::kDouble);
      EXPECT_NEAR(f.sum().item<double>(), wanted[i].sum, 1e-5 * wanted[i].size) << i;
      EXPECT_NEAR(f.abs().sum().item<double>(), wanted[i].size, 1e-5 * wanted[i].size) << i;
      for (size_t j = 0; j < wanted[i].first.size(); ++j)
        EXPECT_NEAR(f.flatten()[int64_t(j)].item<double>(), wanted[i].first[j], 1e-5) << i;
    }
  }
  TempFolder folder_;
  int files_ = 0;
  std::shared_ptr<Network> network_;
};

/// The values of the tensors under other names.
NamedTensors renamed(NamedTensors all, const std::function<std::string(const std::string&)>& name) {
  for (NamedTensor& t : all) t.name = name(t.name);
  return all;
}

/// "adapter.body.1.resnets.0.block1.weight" of "body.2.block1.weight".
std::string diffusers_name(const std::string& name) {
  if (!name.starts_with("body.")) return "adapter." + name;
  const size_t dot = name.find('.', 5);
  const int block = std::stoi(name.substr(5, dot - 5));
  const std::string rest = name.substr(dot + 1);
  return rest.starts_with("in_conv") ? fmt::format("adapter.body.{}.{}", block / 2, rest)
                                     : fmt::format("adapter.body.{}.resnets.{}.{}", block / 2, block % 2, rest);
}

TEST_F(T2IAdapterFile, FullIsThatOfTencent) {
  const auto open = this->open(filled(full({192, 1, {32, 64, 64}})), false);
  const std::vector<Tensor> features = open->encode(image(64));
  expect(features, {{11.218047, 823.263915, {-0.793205, -0.757353, -0.756939, -0.755819}},
                    {14.292053, 814.367150, {-0.205269, -0.237492, -0.237449, -0.214989}},
                    {2.523107, 342.601758, {-1.321259, -1.31783, -1.317446, -1.320437}}});
  Taps taps;
  const Tensor none;
  open->add_to(taps, {.input = none, .c_noise = none, .condition = {}, .control = features, .mask = none, .scale = 0.5});
  EXPECT_TRUE(taps.skip_residuals.empty());
  ASSERT_EQ(taps.residuals.size(), 3u);
  const char* places[] = {"input_blocks.1", "input_blocks.3", "input_blocks.5"};
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(taps.residuals.at(places[i]), features[i] * 0.5)) << places[i];
  taps.check(network_->tap_points());
}

TEST_F(T2IAdapterFile, TheFirstAdaptersAreThoseOfTencent) {
  expect(open(filled(full({64, 3, {32, 64, 64}, true})), false)->encode(image(64)),
         {{40.027770, 377.991967, {-0.225722, -0.218632, -0.218078, -0.218025}},
          {12.999504, 194.301202, {-0.019843, -0.028818, -0.029131, -0.016539}},
          {-0.460885, 48.984202, {0.236459, 0.22372, 0.206926, 0.205145}}});
}

TEST_F(T2IAdapterFile, LightIsThatOfTencent) {
  expect(open(filled(light(192, {32, 64, 64})), false)->encode(image(64)),
         {{6.684857, 935.802557, {-0.375358, -0.343583, -0.335701, -0.339824}},
          {-8.109226, 609.893955, {-0.63263, -0.726445, -0.817579, -0.791043}},
          {-5.902355, 71.942530, {-0.256132, -0.144438, -0.012218, 0.029104}}});
}

TEST_F(T2IAdapterFile, ThatOfSdxlIsTencents) {
  const auto open = this->open(filled(full({768, 1, {32, 64, 128, 128}})), true);
  const std::vector<Tensor> features = open->encode(image(128));
  expect(features, {{-30.168068, 932.094416, {-0.616172, -0.589334, -0.596275, -0.603136}},
                    {215.100755, 4506.310429, {0.583325, 0.529154, 0.530524, 0.53136}},
                    {47.438838, 2289.681321, {-0.609546, -0.587018, -0.587071, -0.598443}},
                    {25.402772, 3900.511967, {-1.875082, -1.898243, -1.89833, -1.896619}}});
  Taps taps;
  const Tensor none;
  open->add_to(taps, {.input = none, .c_noise = none, .condition = {}, .control = features, .mask = none, .scale = 1});
  for (const char* place : {"input_blocks.2", "input_blocks.3", "input_blocks.5", "middle_block"})
    EXPECT_TRUE(taps.residuals.contains(place));
}

TEST_F(T2IAdapterFile, TheNamesOfDiffusersGiveTheSameBits) {
  const auto same = [&](const NamedTensors& tensors, bool xl, const std::function<std::string(const std::string&)>& name) {
    const Tensor x = image(xl ? 128 : 64);
    const std::vector<Tensor> a = open(tensors, xl)->encode(x), b = open(renamed(tensors, name), xl)->encode(x);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << i;
  };
  same(filled(full({192, 1, {32, 64, 64}})), false, diffusers_name);
  same(filled(full({768, 1, {32, 64, 128, 128}})), true, diffusers_name);
  same(filled(light(192, {32, 64, 64})), false, [](std::string name) {
    if (const size_t at = name.find(".body."); at != name.npos) name.replace(at, 6, ".resnets.");
    return "adapter." + name;
  });
}

TEST_F(T2IAdapterFile, OthersAreRefused) {
  const auto refusal = [&](const NamedTensors& tensors, bool xl) { return error_of([&] { open(tensors, xl); }); };
  const std::string generation = refusal(filled(full({192, 1, {32, 64, 64}})), true);
  EXPECT_NE(generation.find("8 times smaller than images, and those of the model 16 times"), generation.npos) << generation;
  const std::string width = refusal(filled(full({192, 1, {32, 96, 96}})), false);
  EXPECT_NE(width.find("feature 1 has 96 channels, and the model's input_blocks.3 has 64"), width.npos) << width;
  NamedTensors more = filled(full({192, 1, {32, 64, 64}}));
  more.push_back({"fuser.weight", more.front().tensor});
  const std::string unknown = refusal(more, false);
  EXPECT_NE(unknown.find("a T2I-Adapter has no tensors fuser.weight"), unknown.npos) << unknown;
  const auto open = this->open(filled(full({192, 1, {32, 64, 64}})), false);
  const std::string side = error_of([&] { open->encode(image(60)); });
  EXPECT_NE(side.find("multiples of 8, not 60x60"), side.npos) << side;
}

class T2IAdapterRun : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF("pipe/tiny_sd/unet/config.json");
    OpenOptions o;
    o.precision = "fp32";
    model_ = std::make_unique<Model>(Model::open(ref_path("pipe/tiny_sd").string(), o));
    write_safetensors(folder_.file("adapter.safetensors"), filled(shapes_));
    write_safetensors(folder_.file("hint.safetensors"),
                      {{"hint", ((at::arange(3 * 32 * 32) * 0.7).sin() * 0.5 + 0.5).view({1, 3, 32, 32})}});
  }
  ImageRequest run() const { return {.prompts = {"a lake"}, .count = 3, .seed = 3, .steps = 3, .cfg = 4}; }
  ImageRequest controlled(const std::string& numbers = "", const std::string& file = "adapter.safetensors") const {
    ImageRequest r = run();
    r.controls = {folder_.file(file) + numbers};
    r.control_images = {folder_.file("hint.safetensors")};
    return r;
  }
  const Shapes shapes_ = full({.input = 12, .kernel = 1, .widths = {32, 64}, .blocks = 1});
  TempFolder folder_;
  std::unique_ptr<Model> model_;
};

TEST_F(T2IAdapterRun, NothingIsAddedAtStrengthZeroAndByZeroWeights) {
  const Tensor plain = model_->sample(run());
  EXPECT_TRUE(at::equal(model_->sample(controlled(":0")), plain));
  NamedTensors zeros = filled(shapes_);
  for (NamedTensor& t : zeros) t.tensor = at::zeros_like(t.tensor);
  write_safetensors(folder_.file("zeros.safetensors"), zeros);
  EXPECT_TRUE(at::equal(model_->sample(controlled("", "zeros.safetensors")), plain));
  EXPECT_FALSE(at::equal(model_->sample(controlled()), plain));
  EXPECT_FALSE(at::equal(model_->sample(controlled(":1@0-0.4")), model_->sample(controlled())));
}

TEST_F(T2IAdapterRun, TheyAddUpAndAnImageDependsOnItselfAlone) {
  const Tensor all = model_->sample(controlled());
  ImageRequest halves = controlled(":0.5");
  halves.controls.push_back(halves.controls.front());
  expect_close(model_->sample(halves), all, 1e-4, "two halves");
  ImageRequest r = controlled();
  r.batch = 2;
  EXPECT_TRUE(at::equal(model_->sample(r), all));
}

}  // namespace
}  // namespace brume::test
