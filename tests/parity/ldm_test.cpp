// Parity with CompVis' latent-diffusion: its Lightning checkpoint, opened with its YAML, gives the embeddings, the latents of
// every step of its DDIMSampler and the decoded image (shared/refs/ldm).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "brume/diffusion/sampling_run.h"
#include "brume/interop/import/import.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

const std::string run_of_it = "ldm/tiny_ldm_ddim5_cfg7.5_seed42";

/// The imported model as `brume sample` opens it.
struct Opened {
  ModelOptions model;
  SampleOptions sample;
  void declare(Fields& f) {
    f.section("model", model, "of the import");
    f.section("sample", sample, "of the import");
  }
};

class TinyLdm : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(run_of_it + ".safetensors");
    imported = import_model(ref_path("ldm/tiny_ldm.ckpt"),
                            {{{"tokenizer", ref_path("pipe/tiny_sd/tokenizer").string()}, {"text_heads", "4"}}, {}});
    Value root = Value::map();
    root.set("model", imported.options);
    root.set("sample", imported.sample);
    apply_override(root, "sample.steps=5");
    apply_override(root, "sample.noise_order=batch");
    read_config(builtins(), root, opened);
    pipeline = std::make_unique<Pipeline>(opened.model, Compute{}, 0, &imported.files);
    load_weights("tiny_ldm.ckpt", contents_of(imported).tensors, pipeline->weights());
    pipeline->freeze();
    wanted = load_tensors(ref_path(run_of_it + ".safetensors").string());
    annotation.caption = ref_json(run_of_it + ".json")["prompt"];
  }
  Tensor reference(const char* name) const { return *find(wanted, name); }
  /// The largest error as a share of the largest number.
  static double worst(const Tensor& got, const Tensor& wanted) { return ((got - wanted).abs().max() / wanted.abs().max()).item<double>(); }

  Imported imported;
  Opened opened;
  std::unique_ptr<Pipeline> pipeline;
  NamedTensors wanted;
  Annotation annotation;
};

TEST_F(TinyLdm, EncodesThePrompt) {
  const at::NoGradGuard no_grad;
  const Condition condition = pipeline->condition({annotation});
  EXPECT_LE(worst(condition.context, reference("cond")), 1e-4);
  ASSERT_TRUE(condition.null);
  EXPECT_LE(worst(condition.null->context, reference("uncond")), 1e-4);
}

TEST_F(TinyLdm, GivesTheLatentsOfEveryStepAndTheImage) {
  const NoiseSchedule& noise = *opened.model.noise;
  std::vector<Tensor> latents;
  SampleRequest request;
  request.images = {annotation};
  request.seed = 42;
  request.observer = [&](int64_t, const Step& step) {
    latents.push_back(step.x * noise.signal(step.sigma));
    return true;
  };
  const Tensor images = sample_images(*pipeline, request, opened.sample);
  const Tensor steps = reference("latents_steps");
  ASSERT_EQ(int64_t(latents.size()), 5);
  double largest = 0;
  for (int64_t i = 0; i < 5; ++i) largest = std::max(largest, worst(latents[size_t(i)], steps[i]));
  const Tensor image = (images / 2 + 0.5).clamp(0, 1);
  const double decoded = worst(images, reference("decoded_raw")), pixels = (image - reference("image")).abs().max().item<double>();
  fmt::print("tiny_ldm: latents {:.2e}, decoded {:.2e}, image {:.2e}\n", largest, decoded, pixels);
  EXPECT_LE(largest, 1e-4);
  EXPECT_LE(decoded, 1e-4);
  EXPECT_LE(pixels, 2e-4);
}

TEST_F(TinyLdm, SaysWhatItLeavesOut) {
  EXPECT_TRUE(imported.losses.empty()) << imported.losses.front();  // the schedule's tables are computed again, and are no loss
  EXPECT_EQ(dump_yaml(*imported.options.find("noise")), "type: scaled_linear\ntimesteps: 1000\nbeta_start: 0.00085\nbeta_end: 0.012\n");
}

}  // namespace
}  // namespace brume::test
