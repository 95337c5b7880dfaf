// Parity with the authors' objectives of few-step models (shared/refs3/objectives.json, ddgan.json), in float64: what the formulas make of
// given draws.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/core/sampler.h"
#include "brume/numerics/adversarial.h"
#include "brume/numerics/ancestral.h"
#include "brume/numerics/consistency.h"
#include "brume/numerics/distillation.h"
#include "brume/numerics/noising.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "../refs3/objectives.json", gan_file = "../refs3/ddgan.json";
constexpr double rtol = 1e-7;
const at::TensorOptions f64 = at::TensorOptions().dtype(at::kDouble);
const std::vector<int64_t> shape{4, 3, 4, 4};

/// scale sin or cos(rate k + phase), k the flat index.
Tensor wave(const std::vector<int64_t>& like, bool cosine, double rate, double phase) {
  int64_t count = 1;
  for (const int64_t n : like) count *= n;
  const Tensor angle = at::arange(count, f64) * rate + phase;
  return (cosine ? angle.cos() * std::sqrt(2.0) : angle.sin()).view(like);
}
Tensor image(const std::vector<int64_t>& like = shape) { return wave(like, false, 0.37, 0.5); }
Tensor noise(const std::vector<int64_t>& like = shape) { return wave(like, true, 0.61, 0.1); }

Tensor params(int which) {
  const std::vector<double> values =
      which == 0 ? std::vector<double>{.3, .5, .8, .6, .2, .4, .25} : std::vector<double>{.4, .3, .9, .5, -.2, .7, .1};
  return at::tensor(values, f64).set_requires_grad(true);
}

Tensor each(const std::vector<double>& values, const Tensor& like) {
  return each_image(values, like, [](double v) { return v; });
}

Tensor toy(const Tensor& p, const Tensor& x, const Tensor& t, const Tensor& h = {}, int64_t dim = -1) {
  const Tensor y = x * p[0] + (x * p[2] + t * p[3]).sin() * p[1] + at::roll(x, 1, dim) * p[4] * (t * p[5]).cos();
  return h.defined() ? y + p[6] * h * x.tanh() : y;
}

/// The EDM-preconditioned toy network, sigma_data 0.5.
Tensor edm(const Tensor& p, const Tensor& x, const std::vector<double>& sigmas) {
  const auto rows = [&](const auto& f) { return each_image(sigmas, x, f); };
  const Tensor f = toy(p, x * rows([](double s) { return 1 / std::hypot(s, .5); }), rows([](double s) { return std::log(s) / 4; }));
  return x * rows([](double s) { return .25 / (s * s + .25); }) + f * rows([](double s) { return s * .5 / std::hypot(s, .5); });
}

void near_list(Closeness& c, const Tensor& got, const json& wanted, double tolerance, const std::string& what) {
  double most = 0;
  for (const json& v : wanted) most = std::max(most, std::abs(v.get<double>()));
  c.near(got.detach(), wanted, tolerance * most, what);
}

std::vector<double> numbers(const json& list) { return list.get<std::vector<double>>(); }
const TimeRange everywhere{-10, 10};

TEST(FewStepParity, MeanFlow) {
  BRUME_NEED_REF(file);
  Closeness close;
  for (const json& c : ref_json(file)["meanflow"]) {
    const Tensor p = params(0);
    const MeanVelocity u = [&](const Tensor& z, const std::vector<double>& t, const std::vector<double>& h) {
      return toy(p, z, each(t, z), each(h, z));
    };
    const FlowSteps steps{image(), noise(), numbers(c["t"]), numbers(c["r"])};
    const MeanFlowLoss loss{c["norm_eps"], c["norm_p"], 1e-4};
    const Tensor l = mean_flow_losses(u, steps, loss, everywhere).mean();
    close.near(l.item<double>(), c["loss"], rtol, "loss");
    l.backward();
    near_list(close, p.grad(), c["grad_params"], rtol, "gradient");
  }
  close.print("meanflow");
}

TEST(FewStepParity, ContinuousTimeConsistency) {
  BRUME_NEED_REF(file);
  Closeness close;
  for (const json& c : ref_json(file)["scm"]) {
    const std::string id = c["id"];
    const double sd = c["sigma_data"];
    const Tensor p = params(0), teacher = params(1), x0 = image() * sd, z = noise() * sd;
    TrigFlow b{{}, {}, {}, sd};
    for (const double n : numbers(c["normals"]))
      b.t.push_back(std::atan(std::exp(n * c["P_std"].get<double>() + c["P_mean"].get<double>()) / sd));
    const Tensor t = each(b.t, x0);
    b.x = x0 * t.cos() + z * t.sin();
    const bool training = c["consistency_training"];
    b.slope = training ? z * t.cos() - x0 * t.sin() : toy(teacher, b.x / sd, t).detach() * sd;
    close.summary(b.slope, c["dxt_dt"], 1e-9, id + " slope");
    const TrigNetwork network = [&](const Tensor& x, const std::vector<double>& times) { return toy(p, x / sd, each(times, x)); };
    const Tensor f = network(b.x, b.t);
    Tangent options{.warmup = std::min(1.0, c["step"].get<double>() / c["warmup"].get<double>()), .step = 1e-4};
    const Tensor g = consistency_tangent(network, b, f, options, everywhere);
    close.summary(g, c["g_normalised"], 1e-7, id + " tangent");
    const Tensor u = p[6] * t.sin();
    const Tensor l = ((-u).exp() * (f - f.detach() - g).square() + u).mean();
    close.near(l.item<double>(), c["loss"], rtol, id + " loss");
    l.backward();
    near_list(close, p.grad(), c["grad_params"], 3e-7, id + " gradient");
  }
  close.print("scm");
}

TEST(FewStepParity, EasyConsistency) {
  BRUME_NEED_REF(file);
  Closeness close;
  for (const json& c : ref_json(file)["ect"]) {
    const std::string id = c["id"];
    EasyConsistency o;
    if (c["options"].contains("c")) o.c = c["options"]["c"];
    if (c["options"].contains("q")) o.q = c["options"]["q"];
    o.constant = c["options"].contains("adj") && c["options"]["adj"] == "const";
    const Tensor p = params(0), x0 = image(), n = noise();
    const std::vector<double> t = numbers(c["t"]), wanted = numbers(c["r"]);
    std::vector<double> r, safe;
    for (size_t i = 0; i < t.size(); ++i) {
      r.push_back(o.below(t[i], c["stage"]));
      close.near(r[i], wanted[i], 1e-9, id + " r");
      safe.push_back(std::max(r[i], 1e-3));
    }
    const Tensor below = at::where(each(r, x0) > 0, edm(p, x0 + n * each(safe, x0), safe), x0).detach();
    const Tensor losses = o.losses(edm(p, x0 + n * each(t, x0), t), below, t, r);
    near_list(close, losses, c["loss"], rtol, id + " losses");
    losses.mean().backward();
    near_list(close, p.grad(), c["grad_params"], rtol, id + " gradient");
  }
  close.print("ect");
}

TEST(FewStepParity, ConsistencyCurricula) {
  BRUME_NEED_REF(file);
  for (const json& c : ref_json(file)["consistency_schedules"])
    for (size_t i = 0; i < c["steps"].size(); ++i) {
      const int64_t step = c["steps"][i], steps = c["total"];
      const ConsistencyCurriculum improved, original{ConsistencyCurriculum::Growth::square_root, 2, 150};
      EXPECT_EQ(improved.intervals(step, steps) + 1, c["improved"][i].get<int64_t>()) << step;
      EXPECT_EQ(original.intervals(step, steps) + 1, c["original"][i].get<int64_t>()) << step;
    }
}

TEST(FewStepParity, ImprovedConsistency) {
  BRUME_NEED_REF(file);
  Closeness close;
  for (const json& c : ref_json(file)["ict"]) {
    const std::string id = c["id"];
    const int64_t intervals = ConsistencyCurriculum().intervals(c["step"], c["total"]);
    EXPECT_EQ(double(intervals + 1), c["num_timesteps"].get<double>()) << id;
    const std::vector<double> levels = consistency_levels(*make<NoiseSchedule>("edm"), intervals, 7);
    for (size_t i = 0; i < 3; ++i) {
      close.near(levels[i], c["sigmas_first_last"][0][i], 1e-9, id + " levels");
      close.near(levels[levels.size() - 3 + i], c["sigmas_first_last"][1][i], 1e-9, id + " last levels");
    }
    const Tensor shares = at::tensor(log_normal_shares(levels, -1.1, 2), f64), pdf = shares / shares.sum();
    close.near(pdf.narrow(0, 0, int64_t(c["pdf_first8"].size())), c["pdf_first8"], 1e-9, id + " shares");
    close.near(pdf.square().sum().item<double>(), c["pdf_sum_sq"], 1e-9, id + " squares of shares");
    std::vector<double> below, above, weights;
    for (const json& k : c["timesteps"]) {
      below.push_back(levels[k.get<size_t>()]), above.push_back(levels[k.get<size_t>() + 1]);
      weights.push_back(1 / (above.back() - below.back()));
      close.near(weights.back(), c["weights"][weights.size() - 1], 1e-9, id + " weight");
    }
    const Tensor p = params(0), x0 = image(), n = noise();
    const auto parameterization = make<Parameterization>("{type: consistency, sigma_min: 0.002, sigma_data: 0.5}");
    const auto denoised = [&](const std::vector<double>& sigmas) {
      const Tensor x = x0 + n * each(sigmas, x0);
      return x * each_image(sigmas, x, [&](double s) { return parameterization->c_skip(s); }) +
             toy(p, x, each(sigmas, x)) * each_image(sigmas, x, [&](double s) { return parameterization->c_out(s); });
    };
    const Tensor online = denoised(above), target = denoised(below).detach();
    close.summary(online, c["predicted"], 1e-7, id + " prediction");
    close.summary(target, c["target"], 1e-7, id + " target");
    const Tensor l = (pseudo_huber(online, target, 0.00054 * std::sqrt(48.0), true) * at::tensor(weights, f64)).mean();
    close.near(l.item<double>(), c["loss"], rtol, id + " loss");
    l.backward();
    near_list(close, p.grad(), c["grad_params"], rtol, id + " gradient");
  }
  close.print("ict");
}

TEST(FewStepParity, ProgressiveDistillation) {
  BRUME_NEED_REF(file);
  Closeness close;
  const auto truncated = make<Weighting>("truncated_snr");
  for (const json& c : ref_json(file)["progressive_distillation"]) {
    const std::string id = c["id"];
    const std::vector<int64_t> nhwc{4, 4, 4, 3};
    const Tensor p0 = params(0), p1 = params(1), x0 = image(nhwc);
    const double b = std::atan(std::exp(-0.5 * c["logsnr_max"].get<double>())),
                 a = std::atan(std::exp(-0.5 * c["logsnr_min"].get<double>())) - b;
    const auto model = [&](const Tensor& p, const Tensor& x, const std::vector<double>& sigmas) {
      const auto rows = [&](const auto& f) { return each_image(sigmas, x, f); };
      const Tensor z = x * rows([](double s) { return 1 / std::hypot(1, s); });
      const Tensor f = toy(p, z, rows([](double s) { return -0.2 * std::log(s); }), {}, 2);
      if (c["mean_type"] == "x") return f;
      return z * rows([](double s) { return 1 / std::hypot(1, s); }) - f * rows([](double s) { return s / std::hypot(1, s); });
    };
    std::vector<double> from, middle, to;
    const double steps = c["num_steps"];
    for (const json& i : c["i"]) {
      const auto sigma = [&](double u) { return std::tan(a * u + b); };
      const double k = i;
      from.push_back(sigma((k + 1) / steps)), middle.push_back(sigma((k + 0.5) / steps)), to.push_back(k == 0 ? 0 : sigma(k / steps));
    }
    const Tensor x = x0 + noise(nhwc) * each(from, x0);
    const Estimates teacher = [&](const Tensor& at, const std::vector<double>& s) { return model(p1, at, s); };
    const Tensor target = progressive_target(teacher, x, from, middle, to);
    close.summary(target, c["x_target"], 1e-7, id + " target");
    const Tensor squares = (model(p0, x, from) - target).square().flatten(1).mean(1);
    near_list(close, squares, c["x_mse"], rtol, id + " x_mse");
    Tensor losses = squares.clone().detach();
    for (size_t i = 0; i < from.size(); ++i) losses[int64_t(i)] *= truncated->weight(from[i], Target::image);
    near_list(close, losses, c["loss"], rtol, id + " loss");
  }
  close.print("progressive distillation");
}

TEST(FewStepParity, DistributionMatching) {
  BRUME_NEED_REF(file);
  Closeness close;
  for (const json& c : ref_json(file)["dmd"]) {
    const std::vector<double> sigmas = numbers(c["sigmas"]);
    const Tensor x = image(), noisy = x + noise() * each(sigmas, x);
    const Tensor real = edm(params(0), noisy, sigmas).detach(), fake = edm(params(1), noisy, sigmas).detach();
    const Tensor g = distribution_gradient(x, real, fake);
    close.summary(g, c["grad"], 1e-7, "gradient");
    close.near(((x - (x - g)).square().mean() / 2).item<double>(), c["loss"], rtol, "loss");
    const Tensor of_real = at::tensor(numbers(c["gan"]["logits_real"]), f64), of_fake = at::tensor(numbers(c["gan"]["logits_fake"]), f64);
    close.near(generator_loss(of_fake).item<double>(), c["gan"]["generator"], 1e-12, "generator");
    close.near(discriminator_loss(of_real, of_fake).item<double>(), c["gan"]["discriminator"], 1e-12, "discriminator");
  }
  close.print("dmd");
}

/// The generator of ddgan.json: 0.6 x cos(0.3 t) + 0.2 tanh(z_0) of x in the variance-preserving frame, t the number of the step.
class ToyGenerator final : public Denoiser {
 public:
  explicit ToyGenerator(std::vector<double> sigmas) : sigmas_(std::move(sigmas)) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    const auto t = double(sigmas_.size() - 2 - size_t(std::find(sigmas_.begin(), sigmas_.end(), sigma) - sigmas_.begin()));
    const Tensor z = condition.vector.select(1, 0).view({-1, 1, 1, 1});
    return {.x0 = x * (0.6 * std::cos(0.3 * t) / std::hypot(1, sigma)) + z.tanh() * 0.2, .x0_uncond = {}, .variance = {}};
  }

 private:
  std::vector<double> sigmas_;
};

/// The draws of ddgan.json: latents [B, 5] and noise [B, C, H, W], numbered apart.
class ToyDraws final : public Noise {
 public:
  Tensor draw(const Tensor& like, double, double) override {
    const std::vector<int64_t> sizes = like.sizes().vec();
    return sizes.size() == 2 ? wave(sizes, false, .53, .2 + .7 * latents_++) : wave(sizes, true, .61, .1 + 1.3 * noises_++);
  }

 private:
  int latents_ = 0, noises_ = 0;
};

TEST(FewStepParity, DenoisingDiffusionGan) {
  BRUME_NEED_REF(gan_file);
  Closeness close;
  for (const json& c : ref_json(gan_file)["coefficients"]) {
    const std::string id = c["id"];
    const std::vector<double> a = numbers(c["a_s_cum"]), s = numbers(c["sigmas_cum"]);
    const double tolerance = c["rtol"].get<double>() * 3;
    for (size_t t = 1; t + 1 < a.size(); ++t) {
      const double from = s[t + 1] / a[t + 1], to = s[t] / a[t], share = to / from * (to / from);
      close.near(a[t] * (1 - share), c["posterior_mean_coef1"][t], tolerance, id + " coef1");
      close.near(a[t] * share / a[t + 1], c["posterior_mean_coef2"][t], tolerance, id + " coef2");
      close.near(std::log(small_variance(from, to) * a[t] * a[t]), c["posterior_log_variance_clipped"][t], 10 * tolerance,
                 id + " variance");
    }
    std::vector<double> sigmas;
    for (size_t t = a.size() - 1; t > 0; --t) sigmas.push_back(s[t] / a[t]);
    sigmas.push_back(0);
    const std::vector<int64_t> sizes{c["batch"], 3, 4, 4};
    Condition condition;
    condition.vector = at::zeros({sizes[0], 5}, f64);
    ToyDraws draws;
    brume::Run run{condition, draws, {}};
    const Tensor start = wave(sizes, true, .61, 1.4) * std::hypot(1, sigmas.front());
    const Tensor made = make<Sampler>("ddgan")->sample(ToyGenerator(sigmas), start, sigmas, run);
    close.near(made, c["sample_from_model"], 3e-6, id + " sample");
  }
  close.print("ddgan");
}

}  // namespace
}  // namespace brume::test
