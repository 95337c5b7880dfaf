// Parity of the transformers of Stable Diffusion 3 and FLUX with their authors' programs and with diffusers (shared/refs2/sd3 and flux):
// one call of the network from each file, and the images of small pipelines with all their text encoders.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/plugin_loader.h"
#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/interop/import/import.h"
#include "brume/text/sentencepiece.h"
#include "brume/train/options.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/imported_network.h"
#include "support/refs.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const std::string sd3 = "../refs2/sd3/", flux = "../refs2/flux/";

NamedTensors load_ref(const std::string& name) { return load_tensors(ref_path(name).string()); }

/// [B, C, H, W] as FLUX's tokens of 2 by 2, (c, dy, dx), and back.
Tensor packed(const Tensor& x) {
  const int64_t b = x.size(0), c = x.size(1), h = x.size(2) / 2, w = x.size(3) / 2;
  return x.view({b, c, h, 2, w, 2}).permute({0, 2, 4, 1, 3, 5}).reshape({b, h * w, 4 * c});
}
Tensor unpacked(const Tensor& x, int64_t rows) {
  const int64_t b = x.size(0), c = x.size(2) / 4, w = x.size(1) / rows;
  return x.view({b, rows, w, c, 2, 2}).permute({0, 3, 1, 4, 2, 5}).reshape({b, c, 2 * rows, 2 * w});
}

TEST(Mmdit, GivesTheOutputOfStableDiffusion3) {
  BRUME_NEED_REF(sd3 + "sd3_medium_like.safetensors");
  const NamedTensors io = load_ref(sd3 + "sd3_medium_like_io.safetensors");
  for (const char* from : {"sd3_medium_like.safetensors", "tiny_sd3/transformer", "tiny_sd3"}) {
    const auto network = network_of(import_model(ref_path(sd3 + from)),
                                    {.input = {16, 24, 24}, .out_channels = 16, .context_width = 96, .vector_width = 72});
    const at::NoGradGuard no_grad;
    Condition c;
    c.context = *find(io, "context"), c.vector = *find(io, "y");
    expect_close(network->forward(*find(io, "x"), *find(io, "t"), c, nullptr), *find(io, "out"), 2e-5, from);
  }
}

TEST(Mmdit, GivesTheOutputOfFlux) {
  BRUME_NEED_REF(flux + "flux_dev_like.safetensors");
  const NamedTensors io = load_ref(flux + "flux_dev_like_io.safetensors");
  const Tensor ids = *find(io, "img_ids");
  const int64_t rows = ids.select(1, 1).max().item<int64_t>() + 1;
  for (const char* from : {"flux_dev_like.safetensors", "tiny_flux/transformer", "tiny_flux"}) {
    const auto network = network_of(import_model(ref_path(flux + from)),
                                    {.input = {16, 16, 16}, .out_channels = 16, .context_width = 64, .vector_width = 40, .guidance = true});
    const at::NoGradGuard no_grad;
    Condition c;
    c.context = *find(io, "txt"), c.vector = *find(io, "y"), c.guidance = *find(io, "guidance");
    const Tensor out = network->forward(unpacked(*find(io, "img"), rows), *find(io, "timesteps") * 1000, c, nullptr);
    expect_close(packed(out), *find(io, "out"), 2e-5, from);
  }
}

void expect_equal_networks(const std::string& file, const std::string& folder) {
  const NamedTensors one = import_model(ref_path(file)).tensors, other = import_model(ref_path(folder)).tensors;
  size_t count = 0;
  for (const NamedTensor& t : one) {
    if (!t.name.starts_with("network.")) continue;
    const Tensor* same = find(other, t.name);
    ASSERT_TRUE(same) << t.name;
    EXPECT_TRUE(at::equal(*same, t.tensor)) << t.name;
    ++count;
  }
  EXPECT_GT(count, 40u);
}

TEST(Mmdit, DirectoriesHaveTheWeightsOfTheFiles) {
  BRUME_NEED_REF(sd3 + "tiny_sd3/model_index.json");
  expect_equal_networks(sd3 + "sd3_medium_like.safetensors", sd3 + "tiny_sd3");
  expect_equal_networks(flux + "flux_dev_like.safetensors", flux + "tiny_flux");
}

/// A directory, opened and run as the program does it.
struct Walk {
  Tensor end, image;
  std::vector<double> sigmas;

  Walk(const std::string& path, const ImportOptions& options, const std::string& cfg) {
    Registry registry;
    register_builtins(registry);
    const StoredModel stored = open_stored(path, options);
    Value root = Value::map();
    root.set("model", stored.card.model);
    root.set("sample", stored.card.sample);
    apply_override(root, "sample.steps", "5", "steps");
    apply_override(root, "sample.noise_order", "batch", "order");
    if (!cfg.empty()) apply_override(root, "sample.guidance.0.scale", cfg, "cfg");
    const Config config = read_stored_configuration(registry, root, path, {});
    const Pipeline pipeline(config.model, Compute{}, StoredWeights{path, stored.tensors, stored.card.files});
    SampleRequest request;
    request.images = {{.caption = "A photograph of an astronaut riding a horse"}};
    request.seed = 42, request.height = 96, request.width = 64;
    request.observer = [&](int64_t, const Step& step) {
      sigmas.push_back(step.sigma);
      return true;
    };
    request.ended = [&](const Tensor& x) { end = x; };
    image = sample_images(pipeline, request, config.sample);
  }
};

void expect_run(const Walk& run, const NamedTensors& wanted, bool packs) {
  const Tensor sigmas = *find(wanted, "sigmas");
  ASSERT_EQ(run.sigmas.size(), 5u);
  for (size_t k = 1; k < 5; ++k) EXPECT_NEAR(run.sigmas[k] / (1 + run.sigmas[k]), sigmas[int64_t(k)].item<double>(), 1e-6) << "level " << k;
  expect_close(packs ? packed(run.end) : run.end, (*find(wanted, "latents_steps"))[4], 5e-5, "latents");
  expect_close(run.image, *find(wanted, "decoded_raw"), 2e-4, "decoded");
}

TEST(Mmdit, SamplesAsTheDirectoryOfStableDiffusion3) {
  BRUME_NEED_REF(sd3 + "tiny_sd3/model_index.json");
  if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  const NamedTensors wanted = load_ref(sd3 + "tiny_sd3_euler5_cfg5_seed42.safetensors");
  expect_run(Walk(ref_path(sd3 + "tiny_sd3").string(), {{{"max_sequence_length", "32"}}, {}}, "5"), wanted, false);
  const ImportOptions options{{{"max_sequence_length", "32"}, {"pipeline", ref_path(sd3 + "tiny_sd3").string()}, {"sample_size", "24"}},
                              {}};
  expect_run(Walk(ref_path(sd3 + "sd3_medium_like.safetensors").string(), options, "5"), wanted, false);
}

TEST(Mmdit, SamplesAsTheDirectoryOfFlux) {
  BRUME_NEED_REF(flux + "tiny_flux/model_index.json");
  if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  const NamedTensors wanted = load_ref(flux + "tiny_flux_euler5_g3.5_seed42.safetensors");
  expect_run(Walk(ref_path(flux + "tiny_flux").string(), {{{"max_sequence_length", "32"}}, {}}, ""), wanted, true);
  const ImportOptions options{{{"max_sequence_length", "32"}, {"pipeline", ref_path(flux + "tiny_flux").string()}}, {}};
  expect_run(Walk(ref_path(flux + "flux_dev_like.safetensors").string(), options, ""), wanted, true);
}

}  // namespace
}  // namespace brume::test
