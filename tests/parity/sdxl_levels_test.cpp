// Single files of SDXL's shape that were trained on EDM's levels, and the U-Net of one alone.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "brume/config/tree.h"
#include "brume/interop/import/import.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/flow.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::string folder = "../refs2/sdxl/", one_file = folder + "tiny_sdxl_sgm.safetensors", unet = "model.diffusion_model.";

class SdxlLevels : public testing::Test {
 protected:
  void SetUp() override { BRUME_NEED_REF(one_file); }
  Imported imported(NamedTensors tensors, std::map<std::string, std::string> settings = {}) const {
    const std::string file = folder_.file("model.safetensors");
    write_safetensors(file, tensors, {});
    settings.insert({{"tokenizer", ref_path(folder + "tiny_sdxl/tokenizer").string()}, {"num_head_channels", "16"}, {"size", "128"}});
    ImportOptions options;
    options.settings = std::move(settings);
    return import_model(file, options);
  }
  Imported with(const NamedTensors& more) const {
    NamedTensors tensors = load_tensors(ref_path(one_file).string());
    tensors.insert(tensors.end(), more.begin(), more.end());
    return imported(tensors);
  }
  static std::string text(const Imported& model, const char* section) { return flow(*model.options.find(section)); }
  static void expect_in(const std::string& text, const std::string& part) { EXPECT_NE(text.find(part), text.npos) << text; }
  TempFolder folder_;
};

// The numbers are those of ComfyUI and diffusers for such files.
TEST_F(SdxlLevels, PlaygroundIsKnownByTheStatisticsOfItsLatents) {
  const Imported model = with({{"edm_mean", at::tensor({-1.5f, 2.f, -1.f, 2.5f}).view({1, 4, 1, 1})},
                               {"edm_std", at::tensor({8.5f, 6.f, 6.5f, 5.25f}).view({1, 4, 1, 1})}});
  expect_in(text(model, "noise"), "{type: edm, sigma_min: 0.002, sigma_max: 80,");
  EXPECT_EQ(text(model, "parameterization"), "{type: edm, sigma_data: 0.5, prediction: eps}");
  expect_in(text(model, "autoencoder"), "scale: 0.5, means: [-1.5, 2, -1, 2.5], stds: [8.5, 6, 6.5, 5.25]");
  expect_in(text(model, "network"), "noise_embedding: {type: sinusoidal, input: quarter_log}");
  expect_in(error_of([&] {
              with({{"edm_mean", at::tensor({1.f})}, {"edm_std", at::tensor({1.f})}});
            }),
            "tensor 'edm_mean' has 1 number, expected 4");
}

TEST_F(SdxlLevels, CosXlIsKnownByItsLargestLevel) {
  const Imported model = with({{"edm_vpred.sigma_max", at::full({}, 120.f)}, {"edm_vpred.sigma_min", at::full({}, 0.25f)}});
  expect_in(text(model, "noise"), "{type: edm, sigma_min: 0.25, sigma_max: 120,");
  EXPECT_EQ(text(model, "parameterization"), "{type: edm, sigma_data: 1, prediction: v}");
  expect_in(text(model, "autoencoder"), "scale: 0.13025");
  EXPECT_EQ(text(with({}), "parameterization"), "eps");
}

TEST_F(SdxlLevels, AUnetAloneIsCompletedByAnotherFile) {
  const std::string whole = ref_path(one_file).string();
  NamedTensors alone;
  for (NamedTensor& t : load_tensors(whole))
    if (t.name.starts_with(unet)) alone.push_back({t.name.substr(unet.size()), t.tensor});
  const Imported model = imported(alone, {{"vae", whole}, {"text_encoder", whole}}), wanted = with({});
  ASSERT_EQ(model.tensors.size(), wanted.tensors.size());
  for (const NamedTensor& t : wanted.tensors) {
    const at::Tensor* got = find(model.tensors, t.name);
    ASSERT_TRUE(got) << t.name;
    EXPECT_TRUE(at::equal(*got, t.tensor)) << t.name;
  }
  EXPECT_EQ(flow(model.options), flow(wanted.options));
  const std::string lacks = error_of([&] { imported(alone, {{"vae", whole}}); });
  expect_in(lacks, "lacks the text encoders of SDXL");
  expect_in(lacks, "text_encoder=FILE completes it with those of another checkpoint");
}

}  // namespace
}  // namespace brume::test
