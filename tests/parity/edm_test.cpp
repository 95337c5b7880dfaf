// Parity with the networks of NVlabs/edm: the state dict of shared/refs/net_edm imported as it lies there, its denoiser and its Heun
// sampler; and, for the variants that are not there, a second reading of the forward pass that goes by the names of a state dict.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/conv_transpose2d.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "brume/diffusion/model_files.h"
#include "brume/interop/import/import.h"
#include "brume/nn/ops/fir_filter.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/parity.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::string ddpmpp = "net_edm/edm_songunet_ddpmpp_class";

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

/// The largest error as a share of what is allowed: 1e-4 max(1, max|wanted|).
double share(const Tensor& got, const Tensor& wanted) {
  EXPECT_EQ(got.sizes(), wanted.sizes());
  const Tensor w = wanted.to(at::kDouble);
  return (got.to(at::kDouble) - w).abs().max().item<double>() / (1e-4 * std::max(1.0, w.abs().max().item<double>()));
}

class Ddpmpp : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(ddpmpp + ".json");
    io = load_tensors(ref_path(ddpmpp + "_io.safetensors"));
    model = files.model(ref_path(ddpmpp + ".safetensors"));
    condition.classes = wanted("labels").argmax(1);
  }
  Tensor wanted(const std::string& name) const { return *find(io, name); }

  const ModelFiles files{builtins(), Compute{}, ""};
  NamedTensors io;
  OtherModel model;
  Condition condition;
};

TEST_F(Ddpmpp, GivesItsDenoisedImages) {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < 2; ++i)
    rows.push_back(model.denoiser->denoise(wanted("x").narrow(0, i, 1), wanted("sigma")[i].item<double>(), condition.slice(i, 1)).x0);
  const double error = share(at::cat(rows), wanted("D"));
  fmt::print("EDM's DDPM++, D: {:.3f} of the tolerance\n", error);
  EXPECT_LE(error, 1);
}

TEST_F(Ddpmpp, GivesItsSamplesByHeun) {
  const at::NoGradGuard no_grad;
  const auto sampler = make<Sampler>("heun");
  const std::vector<double> sigmas = make<Spacing>("karras")->sigmas(*model.schedule, 6);
  FixedNoise none(0);
  brume::Run once{condition, none, {}, model.schedule.get()};
  const Tensor x = sampler->sample(*model.denoiser, wanted("heun6_latents").to(at::kDouble) * sigmas[0], sigmas, once);
  const double error = share(x, wanted("heun6_samples"));
  fmt::print("EDM's DDPM++, 6 steps of Heun: {:.3f} of the tolerance\n", error);
  EXPECT_LE(error, 1);
}

/// SongUNet and DhariwalUNet as a walk over the modules of a state dict.
class Published {
 public:
  explicit Published(NamedTensors weights) : weights_(std::move(weights)) { song_ = !find(weights_, "out_conv.weight"); }
  Tensor taps;  ///< [1, 1, L, L]
  /// `enc` and `dec`: the modules of both ways, in the order in which the original makes them.
  Tensor operator()(const Tensor& x, const Tensor& c_noise, const Tensor& one_hot, const std::vector<std::string>& enc,
                    const std::vector<std::string>& dec) const {
    const Tensor embedding = embed(c_noise, one_hot);
    std::vector<Tensor> skips;
    Tensor h = x, aux = x, image, part;
    for (const std::string& m : enc) {
      if (m.ends_with("aux_down")) {
        aux = down(aux, 1);
      } else if (m.ends_with("aux_skip")) {
        h = skips.back() = h + conv(m, aux);
      } else if (m.ends_with("aux_residual")) {
        const Tensor wide = at::conv2d(aux, w(m + ".weight"), {}, 1, 1 + (taps.size(3) - 1) / 2);
        h = skips.back() = aux = (h + down(wide, 0) + w(m + ".bias").view({1, -1, 1, 1})) / std::sqrt(2.0);
      } else {
        skips.push_back(h = m.ends_with("_conv") ? conv(m, h) : block(m, h, embedding));
      }
    }
    for (const std::string& m : dec) {
      if (m.ends_with("aux_up")) {
        image = up(image);
      } else if (m.ends_with("aux_norm")) {
        part = norm(m, h);
      } else if (m.ends_with("aux_conv")) {
        part = conv(m, at::silu(part));
        image = image.defined() ? image + part : part;
      } else {
        if (h.size(1) != w(m + ".norm0.weight").size(0)) h = at::cat({h, skips.back()}, 1), skips.pop_back();
        h = block(m, h, embedding);
      }
    }
    return song_ ? image : conv("out_conv", at::silu(norm("out_norm", h)));
  }

 private:
  const Tensor& w(const std::string& name) const {
    const Tensor* t = find(weights_, name);
    if (!t) throw std::runtime_error("no " + name);
    return *t;
  }
  bool has(const std::string& name) const { return find(weights_, name) != nullptr; }
  Tensor conv(const std::string& m, const Tensor& x) const {
    return at::conv2d(x, w(m + ".weight"), w(m + ".bias"), 1, w(m + ".weight").size(3) / 2);
  }
  Tensor norm(const std::string& m, const Tensor& x) const {
    return at::group_norm(x.contiguous(), std::min<int64_t>(32, x.size(1) / 4), w(m + ".weight"), w(m + ".bias"), song_ ? 1e-6 : 1e-5);
  }
  Tensor down(const Tensor& x, int64_t padded) const {
    return at::conv2d(x, taps.expand({x.size(1), 1, taps.size(2), taps.size(3)}).contiguous(), {}, 2, padded * ((taps.size(3) - 1) / 2), 1,
                      x.size(1));
  }
  Tensor up(const Tensor& x) const {
    return at::conv_transpose2d(x, (taps * 4).expand({x.size(1), 1, taps.size(2), taps.size(3)}).contiguous(), {}, 2,
                                (taps.size(3) - 1) / 2, 0, x.size(1));
  }
  Tensor resampled(const std::string& m, const Tensor& x) const {
    return m.ends_with("_up") ? up(x) : m.ends_with("_down") ? down(x, 1) : x;
  }

  Tensor block(const std::string& m, const Tensor& x, const Tensor& embedding) const {
    Tensor h = conv(m + ".conv0", resampled(m, at::silu(norm(m + ".norm0", x))));
    const Tensor e = at::linear(embedding, w(m + ".affine.weight"), w(m + ".affine.bias")).unsqueeze(-1).unsqueeze(-1);
    const int64_t c = h.size(1);
    h = song_ ? at::silu(norm(m + ".norm1", h + e)) : at::silu(norm(m + ".norm1", h) * (e.narrow(1, 0, c) + 1) + e.narrow(1, c, c));
    const Tensor skip = resampled(m, x);
    const double scale = song_ ? std::sqrt(0.5) : 1;
    h = (conv(m + ".conv1", h) + (has(m + ".skip.weight") ? conv(m + ".skip", skip) : skip)) * scale;
    if (!has(m + ".qkv.weight")) return h;
    const int64_t heads = song_ ? 1 : c / 64, n = h.size(2) * h.size(3);
    const Tensor qkv = conv(m + ".qkv", norm(m + ".norm2", h)).reshape({h.size(0) * heads, c / heads, 3, n});
    const Tensor q = qkv.select(2, 0), k = qkv.select(2, 1), v = qkv.select(2, 2);
    const Tensor p = at::softmax(at::bmm(q.transpose(1, 2), k / std::sqrt(double(c / heads))), 2);
    const Tensor a = at::bmm(v, p.transpose(1, 2)).reshape(h.sizes());
    return (h + conv(m + ".proj", a)) * scale;
  }

  Tensor embed(const Tensor& c_noise, const Tensor& one_hot) const {
    const int64_t half = w("map_layer0.weight").size(1) / 2;
    Tensor f = at::pow(1e-4, at::arange(half, at::kFloat) / double(song_ ? half - 1 : half));
    if (has("map_noise.freqs")) f = w("map_noise.freqs") * (2 * M_PI);
    const Tensor angles = c_noise.unsqueeze(1) * f.unsqueeze(0);
    Tensor e = song_ ? at::cat({angles.sin(), angles.cos()}, 1) : at::cat({angles.cos(), angles.sin()}, 1);
    const auto linear = [&](const char* m, const Tensor& t) {
      const std::string name = m;
      return at::linear(t, w(name + ".weight"), has(name + ".bias") ? w(name + ".bias") : Tensor());
    };
    if (song_) e = e + linear("map_label", one_hot * std::sqrt(double(one_hot.size(1))));
    e = linear("map_layer1", at::silu(linear("map_layer0", e)));
    if (!song_) e = e + linear("map_label", one_hot);
    return at::silu(e);
  }

  NamedTensors weights_;
  bool song_ = true;
};

/// A variant, as the constructors of the original take it, and the modules that they make.
struct Variant {
  const char* name;
  const char* yaml;
  std::vector<double> filter;
  std::vector<std::string> enc, dec;
};
void PrintTo(const Variant& v, std::ostream* out) { *out << v.name; }

std::vector<std::string> prefixed_names(const char* half, const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const std::string& n : names) all.push_back(std::string(half) + "." + n);
  return all;
}

const std::vector<std::string> plain_enc{"16x16_conv", "16x16_block0", "8x8_down", "8x8_block0", "4x4_down", "4x4_block0"};
const std::vector<std::string> plain_dec{"4x4_in0",    "4x4_in1",    "4x4_block0", "4x4_block1",   "8x8_up",
                                         "8x8_block0", "8x8_block1", "16x16_up",   "16x16_block0", "16x16_block1"};
std::vector<std::string> with_names(std::vector<std::string> names, const std::vector<std::pair<std::string, std::string>>& after) {
  for (const auto& [place, name] : after) names.insert(std::find(names.begin(), names.end(), place) + 1, name);
  return names;
}

const std::vector<Variant> variants{
    {"ddpmpp",
     "{type: song_unet, channels: 16, multipliers: [1, 2, 2], blocks: 1, attention_resolutions: [8]}",
     {1, 1},
     plain_enc,
     with_names(plain_dec, {{"16x16_block1", "16x16_aux_norm"}, {"16x16_aux_norm", "16x16_aux_conv"}})},
    {"ncsnpp",
     "{type: song_unet, channels: 16, multipliers: [2, 2, 1], blocks: 1, attention_resolutions: [8], encoder: residual, embedding_type: "
     "fourier, noise_multiplier: 2, resample_filter: [1, 3, 3, 1], noise_label: edm}",
     {1, 3, 3, 1},
     with_names(plain_enc, {{"8x8_down", "8x8_aux_residual"}, {"4x4_down", "4x4_aux_residual"}}),
     with_names(plain_dec, {{"16x16_block1", "16x16_aux_norm"}, {"16x16_aux_norm", "16x16_aux_conv"}})},
    {"skips",
     "{type: song_unet, channels: 16, multipliers: [1, 2, 2], blocks: 1, attention_resolutions: [4], encoder: skip, decoder: skip, "
     "resample_filter: [1, 3, 3, 1], embedding_multiplier: 2}",
     {1, 3, 3, 1},
     with_names(
         plain_enc,
         {{"8x8_down", "8x8_aux_down"}, {"8x8_aux_down", "8x8_aux_skip"}, {"4x4_down", "4x4_aux_down"}, {"4x4_aux_down", "4x4_aux_skip"}}),
     with_names(plain_dec, {{"4x4_block1", "4x4_aux_norm"},
                            {"4x4_aux_norm", "4x4_aux_conv"},
                            {"8x8_block1", "8x8_aux_up"},
                            {"8x8_aux_up", "8x8_aux_norm"},
                            {"8x8_aux_norm", "8x8_aux_conv"},
                            {"16x16_block1", "16x16_aux_up"},
                            {"16x16_aux_up", "16x16_aux_norm"},
                            {"16x16_aux_norm", "16x16_aux_conv"}})},
    {"adm",
     "{type: dhariwal_unet, channels: 32, multipliers: [1, 2, 4], blocks: 1, attention_resolutions: [8, 4]}",
     {1, 1},
     plain_enc,
     plain_dec},
};

class EdmVariants : public testing::TestWithParam<Variant> {
 protected:
  static constexpr int64_t classes = 5;
  const Network::Context context{.input = {3, 16, 16}, .out_channels = 3, .classes = classes, .seed = 3};

  std::shared_ptr<Network> awake(const Network::Context& c, const std::string& more = "") const {
    const auto network = make<Network>(GetParam().yaml, c, more);
    const at::NoGradGuard no_grad;
    uint64_t seed = 50;
    for (Weight& w : network->weights())
      if (w.trainable) w.tensor.add_(normal(w.tensor.sizes(), ++seed) * 0.05);
    return network;
  }
  /// The state dict of the whole preconditioned network, as the original writes it.
  NamedTensors state_dict(const Network& network) const {
    NamedTensors all;
    for (const Weight& w : network.weights()) all.push_back({"model." + w.name, w.tensor.detach().contiguous()});
    std::set<std::string> parts;
    for (const NamedTensor& t : all)
      if (t.name.find("_down.conv0.weight") != std::string::npos || t.name.find("_up.conv0.weight") != std::string::npos)
        parts.insert(t.name.substr(0, t.name.size() - 6));
    for (const std::string& part : parts) all.push_back({part + "resample_filter", taps()});
    return all;
  }
  Tensor taps() const {
    const Tensor t = at::tensor(GetParam().filter, at::kFloat);
    return (t.unsqueeze(0) * t.unsqueeze(1) / t.sum().pow(2)).view({1, 1, t.size(0), t.size(0)}).contiguous();
  }
};

TEST_P(EdmVariants, ComputesWhatASecondReadingComputes) {
  const at::NoGradGuard no_grad;
  const auto network = awake(context);
  NamedTensors weights;
  for (const Weight& w : network->weights()) weights.push_back({w.name, w.tensor.contiguous()});
  Published published(weights);
  published.taps = taps();
  const Tensor x = normal({2, 3, 16, 16}, 1), c_noise = at::tensor({-0.7f, 0.4f}), classes_of = at::tensor(std::vector<int64_t>{1, 4});
  const Tensor one_hot = (at::arange(classes, at::kLong).unsqueeze(0) == classes_of.unsqueeze(1)).to(at::kFloat);
  const Tensor wanted = published(x, c_noise, one_hot, prefixed_names("enc", GetParam().enc), prefixed_names("dec", GetParam().dec));
  Condition condition;
  condition.classes = classes_of;
  const Tensor got = network->forward(x, c_noise, condition, nullptr);
  const double error = share(got, wanted);
  fmt::print("{}: {:.3f} of the tolerance\n", GetParam().name, error);
  EXPECT_LE(error, 1);
  EXPECT_GT(wanted.abs().max().item<double>(), 0.1);
}

TEST_P(EdmVariants, IsReadFromItsStateDict) {
  const at::NoGradGuard no_grad;
  const auto network = awake(context);
  const TempFolder folder;
  write_safetensors(folder.file("net.safetensors"), state_dict(*network));
  const ModelFiles files(builtins(), Compute{}, folder.path());
  const OtherModel model = files.model("net.safetensors");
  const Tensor x = normal({2, 3, 16, 16}, 2);
  Condition condition;
  condition.classes = at::tensor(std::vector<int64_t>{0, 3});
  const double sigma = 0.8, sd = 0.5, norm = std::hypot(sigma, sd);
  const Tensor F =
      network->forward(x * (1 / norm), at::tensor({float(std::log(sigma) / 4), float(std::log(sigma) / 4)}), condition, nullptr);
  EXPECT_LE(share(model.denoiser->denoise(x, sigma, condition).x0, x * (sd * sd / norm / norm) + F * (sigma * sd / norm)), 0.05);
}

INSTANTIATE_TEST_SUITE_P(Edm, EdmVariants, testing::ValuesIn(variants), [](const auto& info) { return std::string(info.param.name); });

// table 1 of the paper: the noise level that the network receives and what its output means.
TEST(EdmPreconditioning, VpAndVe) {
  const at::NoGradGuard no_grad;
  const auto bare = make<Network>("{type: song_unet, channels: 16, multipliers: [1, 2], blocks: 1, zero_init: false}",
                                  {.input = {3, 8, 8}, .out_channels = 3, .seed = 4});
  const TempFolder folder;
  NamedTensors weights;
  for (const Weight& w : bare->weights()) weights.push_back({w.name, w.tensor.contiguous()});
  weights.push_back({"enc.4x4_down.conv0.resample_filter", at::tensor({0.25f, 0.25f, 0.25f, 0.25f}).view({1, 1, 2, 2})});
  write_safetensors(folder.file("net.safetensors"), weights);
  const Tensor x = normal({1, 3, 8, 8}, 2) * 3;
  const auto denoised = [&](const std::string& precond, double sigma) {
    folder.file("net.json", "{\"precond\": \"" + precond + "\"}");
    return ModelFiles(builtins(), Compute{}, folder.path()).model("net.safetensors").denoiser->denoise(x, sigma, {}).x0;
  };
  const auto told = [&](const Tensor& in, double c_noise) { return bare->forward(in, at::tensor({float(c_noise)}), {}, nullptr); };
  for (const double sigma : {0.05, 2.0}) {
    const double beta_d = 19.9, beta_min = 0.1;
    const double t = (std::sqrt(beta_min * beta_min + 2 * beta_d * std::log(1 + sigma * sigma)) - beta_min) / beta_d;
    EXPECT_LE(share(denoised("vp", sigma), x - told(x / std::sqrt(1 + sigma * sigma), 999 * t) * sigma), 0.5);
    EXPECT_LE(share(denoised("ve", sigma), x + told(x, std::log(sigma / 2)) * sigma), 0.1);
  }
}

// Zhang 2019's filters by their definition: a strided convolution with the outer product of the taps, and its adjoint times 4.
TEST(Filter, IsTheConvolutionAndItsAdjoint) {
  const Tensor x = normal({2, 3, 6, 8}, 7).to(at::kDouble);
  for (const std::vector<double>& taps : {std::vector<double>{1, 1}, {1, 3, 3, 1}, {1, 2}, {1, 4, 3, 2, 5, 1}}) {
    const Tensor t = at::tensor(taps, at::kDouble) / at::tensor(taps, at::kDouble).sum();
    const int64_t length = t.size(0), margin = (length - 1) / 2;
    const Tensor kernel = (t.unsqueeze(0) * t.unsqueeze(1)).expand({3, 1, length, length}).contiguous();
    const nn::Filter filter(taps);
    EXPECT_LE((filter.down(x) - at::conv2d(x, kernel, {}, 2, margin, 1, 3)).abs().max().item<double>(), 1e-12);
    EXPECT_LE((filter.up(x) - at::conv_transpose2d(x, kernel * 4, {}, 2, margin, 0, 3)).abs().max().item<double>(), 1e-12);
  }
}

}  // namespace
}  // namespace brume::test
