// Parity of `kl` with CompVis' AutoencoderKL (shared/refs/net/ldm_autoencoder_kl), its state dict loaded by name, and with diffusers'
// (the VAE of shared/refs/pipe/tiny_sd), its weights renamed.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "brume/core/autoencoder.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

const std::string ldm = "net/ldm_autoencoder_kl", vae = "pipe/tiny_sd/vae/diffusion_pytorch_model.safetensors";

/// Largest error as a share of what is allowed: 1e-4 max(1, max|wanted|).
double share(const Tensor& got, const Tensor& wanted) {
  EXPECT_EQ(got.sizes(), wanted.sizes());
  return (got.to(at::kDouble) - wanted).abs().max().item<double>() / (1e-4 * std::max(1.0, wanted.abs().max().item<double>()));
}

class LdmAutoencoder : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(ldm + ".json");
    const nlohmann::json config = ref_json(ldm + ".json")["arch"]["ddconfig"];
    kl = make<Autoencoder>(
        fmt::format("{{type: kl, channels: {}, multipliers: [{}], blocks: {}, attention_resolutions: [{}], "
                    "latent_channels: {}, kl_weight: 1, scale: {}}}",
                    config["ch"].get<int64_t>(), fmt::join(config["ch_mult"].get<std::vector<int64_t>>(), ", "),
                    config["num_res_blocks"].get<int64_t>(), fmt::join(config["attn_resolutions"].get<std::vector<int64_t>>(), ", "),
                    config["z_channels"].get<int64_t>(), scale),
        {.image = {3, 32, 32}});
    load_weights(ref_path(ldm + ".pt"), kl->weights());
    io = load_tensors(ref_path(ldm + "_io.safetensors"));
  }
  Tensor wanted(const std::string& name) const { return *find(io, name); }

  static constexpr double scale = 0.18215;
  std::shared_ptr<Autoencoder> kl;
  NamedTensors io;
};

TEST_F(LdmAutoencoder, HasTheWeightsOfTheReference) {
  std::set<std::string> ours, theirs;
  int64_t count = 0;
  const auto line = [](const std::string& name, const Tensor& t) { return fmt::format("{} [{}]", name, fmt::join(t.sizes(), ", ")); };
  for (const Weight& w : kl->weights()) ours.insert(line(w.name, w.tensor)), count += w.tensor.numel();
  for (const NamedTensor& t : load_tensors(ref_path(ldm + ".pt"))) theirs.insert(line(t.name, t.tensor));
  EXPECT_EQ(ours, theirs);
  EXPECT_EQ(count, ref_json(ldm + ".json")["n_params"].get<int64_t>());
}

TEST_F(LdmAutoencoder, EncodesDrawsAndDecodes) {
  const at::NoGradGuard no_grad;
  const Tensor moments = kl->encode_moments(wanted("x"));
  at::Generator random = at::detail::createCPUGenerator(0);
  const Tensor drawn = kl->latents_of(moments, &random);
  const double shares[] = {share(moments, wanted("out.moments")), share(kl->encode(wanted("x")), wanted("out.mean") * scale),
                           share(drawn, wanted("out.z_sample_seed0") * scale),
                           share(kl->decode(wanted("out.mean") * scale), wanted("out.decode_mean")),
                           share(kl->decode(wanted("out.z_sample_seed0") * scale), wanted("out.decode_sample"))};
  fmt::print("LDM's autoencoder, errors as shares of what is allowed: {:.3f}\n", fmt::join(shares, " "));
  for (const double s : shares) EXPECT_LE(s, 1);
}

TEST_F(LdmAutoencoder, ReconstructsAndItsKlAgrees) {
  for (const bool training : {false, true}) {  // attention takes another path if gradients are on
    at::Generator random = at::detail::createCPUGenerator(0);
    const at::AutoGradMode mode(training);
    const Autoencoder::Reconstruction r = kl->reconstruct(wanted("x"), random);
    EXPECT_LE(share(r.latents, wanted("out.z_sample_seed0")), 1);
    EXPECT_LE(share(r.images, wanted("out.decode_sample")), 1);
    EXPECT_LE(share(r.penalty, wanted("out.kl").mean()), 1);
  }
}

// bf16 has 8 bits: 2^-9 = 0.2 % a rounding (measured: the line printed).
TEST_F(LdmAutoencoder, InBf16) {
  const at::NoGradGuard no_grad;
  const auto narrow = make<Autoencoder>("{type: kl, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [16]}",
                                        {.image = {3, 32, 32}, .dtype = at::kBFloat16});
  load_weights(ref_path(ldm + ".pt"), narrow->weights());
  const auto error = [](const Tensor& got, const Tensor& wanted) { return ((got - wanted).norm() / wanted.norm()).item<double>(); };
  const double moments = error(narrow->encode_moments(wanted("x")), wanted("out.moments"));
  const double images = error(narrow->decode(wanted("out.mean")), wanted("out.decode_mean"));
  fmt::print("LDM's autoencoder, bf16: relative L2 error of the moments {:.4f}, of the images {:.4f}\n", moments, images);
  for (const double e : {moments, images}) {
    EXPECT_LE(e, 0.03);
    EXPECT_GE(e, 1e-4) << "this was not bf16";
  }
}

/// As diffusers named attention before version 0.17.
NamedTensors old_names(NamedTensors tensors) {
  const std::pair<std::string, std::string> changes[] = {
      {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
  for (NamedTensor& t : tensors)
    for (const auto& [now, then] : changes)
      if (const size_t at = t.name.find(now); at != std::string::npos) t.name.replace(at, now.size(), then);
  return tensors;
}

TEST(DiffusersVae, ItsWeightsGiveItsOutput) {
  BRUME_NEED_REF(vae);
  const at::NoGradGuard no_grad;
  const NamedTensors stored = load_tensors(ref_path(vae)), io = load_tensors(ref_path("pipe/tiny_sd_components.safetensors"));
  const Tensor moments = *find(io, "vae_moments"), decoded = *find(io, "vae_decode_of_z");
  for (const bool old : {false, true}) {
    const auto kl = make<Autoencoder>("{type: kl, channels: 32, multipliers: [1, 2], blocks: 1}", {.image = {3, 32, 32}});
    load_weights(vae, from_diffusers_vae(old ? old_names(stored) : stored), kl->weights());
    const Tensor got = kl->encode_moments(*find(io, "vae_x"));
    // What it decodes there is the input of the U-Net's test.
    const double shares[] = {share(got, moments), share(kl->decode(*find(io, "unet_x")), decoded)};
    fmt::print("diffusers' VAE, errors as shares of what is allowed: {:.3f}\n", fmt::join(shares, " "));
    for (const double s : shares) EXPECT_LE(s, 1);
  }
}

}  // namespace
}  // namespace brume::test
