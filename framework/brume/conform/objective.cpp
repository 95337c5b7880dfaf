#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "brume/config/errors.h"
#include "brume/conform/codes.h"
#include "brume/conform/conform.h"
#include "brume/conform/exact_models.h"
#include "brume/core/joint_objective.h"

namespace brume {
namespace {

using Kind = KnowingModel::Kind;
using Knows = KnowingModel::Knows;

at::Generator generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

/// Returns images whose every pixel is N(0, s^2).
Tensor images(int64_t count, uint64_t seed) {
  at::Generator random = generator(seed);
  return at::randn({count, 3, 4, 4}, random, at::TensorOptions().dtype(at::kFloat)) * KnowingModel::s;
}

/// An objective, and a model that it can train.
struct Subject {
  const Objective& objective;
  Kind kind;
  bool consistency = false;  ///< it trains only models that are the identity at the smallest sigma

  Tensor loss(const KnowingModel& model, const Tensor& x0, uint64_t seed) const {
    const ExactTeacher teacher(x0);
    at::Generator random = generator(seed);
    Training training{0, 100, objective.memory(model.schedule()), &teacher};
    Condition condition;
    condition.vector = at::zeros({x0.size(0), 16});  // the length of a step, for those that take one
    return objective.loss(model, x0, condition, training, random);
  }
};

/// Returns the first of these models that the objective accepts on a schedule; nothing if it refuses all, with its words in `refusal`.
std::optional<Subject> subject_of(const Objective& objective, std::shared_ptr<const NoiseSchedule> schedule, std::string& refusal) {
  const double least = schedule->sigma(schedule->t_min());
  for (const bool boundary : {false, true})
    for (const LearnedVariance variance : {LearnedVariance::none, LearnedVariance::learned_range}) try {
        const Kind kind{schedule, boundary ? boundary_prediction(least) : v_prediction(), variance};
        objective.check({*schedule, *kind.parameterization, variance});
        return Subject{objective, kind, boundary};
      } catch (const ConfigError& e) {
        refusal = e.what();
      }
  return {};
}

void fill(const Tensor& t, double value) { t.detach().fill_(value); }

void check_minimum(std::vector<Finding>& findings, const Subject& s) {
  const Law law{
      "least for the exact model",
      "A model that knows the images has a smaller loss than one whose output is off by a constant, by a share of the image or by "
      "a share of the noise"};
  check(findings, law, [&](Finding& f) {
    const Tensor x0 = images(64, 8);
    const auto loss = [&](Tensor KnowingModel::*error, double by) {
      const KnowingModel model(s.kind, Knows::images, x0);
      fill(model.*error, by);
      return s.loss(model, x0, 1).item<double>();
    };
    const double exact = loss(&KnowingModel::offset, 0);
    f.measured = fmt::format("{:.3g}, less than each", exact), f.wanted = "less than with any error";
    const std::pair<const char*, Tensor KnowingModel::*> errors[] = {
        {"of 1", &KnowingModel::offset}, {"of the image", &KnowingModel::of_image}, {"of the noise", &KnowingModel::of_noise}};
    for (const auto& [name, error] : errors)
      for (const double by : {-0.3, 0.3}) {
        const double other = loss(error, by);
        if (f.holds && !(exact < other)) {
          f.holds = false;
          f.measured = fmt::format("{:.4g}, and {:.4g} with {} {} added to F*", exact, other, by, name);
        }
      }
  });
}

/// Mean and standard error of some numbers.
struct Statistics {
  double mean = 0, error = 0;
  explicit Statistics(const std::vector<double>& values) {
    const double n = double(values.size());
    for (const double v : values) mean += v / n;
    for (const double v : values) error += (v - mean) * (v - mean) / (n * (n - 1));
    error = std::sqrt(error);
  }
};

void check_posterior_mean(std::vector<Finding>& findings, const Subject& s) {
  const Law law{
      "no gradient at the posterior mean",
      "For Gaussian images, the expected gradient at E[x0 | x] is 0, since the posterior is symmetric: along a constant and along x",
      "Karras et al. 2022, app. B.3"};
  check(findings, law, [&](Finding& f) {
    std::vector<double> constant, input;
    for (uint64_t seed = 0; seed < 48; ++seed) {
      const Tensor x0 = images(64, 100 + seed);
      const KnowingModel model(s.kind, Knows::distribution, x0);
      s.loss(model, x0, seed).backward();
      constant.push_back(model.offset.grad().sum().item<double>());
      input.push_back(model.of_input.grad().sum().item<double>());
    }
    const Statistics a(constant), b(input);
    f.measured = fmt::format("{:.2e} +- {:.1e} along 1, {:.2e} +- {:.1e} along x", a.mean, a.error, b.mean, b.error);
    f.wanted = "0 within 5 standard errors";
    f.holds = std::abs(a.mean) <= 5 * a.error && std::abs(b.mean) <= 5 * b.error;
  });
}

void check_batch(std::vector<Finding>& findings, const Subject& s) {
  check(findings, {"image i alone", "The gradient of one image does not depend on the error of another"}, [&](Finding& f) {
    const Tensor x0 = images(16, 3);
    const auto gradients = [&](double first) {
      const KnowingModel model(s.kind, Knows::images, x0);
      fill(model.offset, 0.2);
      model.offset.detach()[0].fill_(first);
      s.loss(model, x0, 5).backward();
      return model.offset.grad().narrow(0, 1, 15).to(at::kDouble);
    };
    const Tensor before = gradients(0.2), after = gradients(1.2);
    const double change = (after - before).abs().max().item<double>() / std::max(before.abs().max().item<double>(), 1e-30);
    f.measured = fmt::format("changes by {:.1e} of its size", change), f.wanted = "below 1e-5", f.holds = change < 1e-5;
  });
  check(findings, {"the mean over the batch", "The expected loss does not depend on the size of the batch"}, [&](Finding& f) {
    const auto losses = [&](int64_t batch, uint64_t first) {
      std::vector<double> all;
      for (uint64_t seed = first; seed < first + 48; ++seed) {
        const Tensor x0 = images(batch, seed);
        const KnowingModel model(s.kind, Knows::images, x0);
        fill(model.offset, 0.5);
        all.push_back(s.loss(model, x0, seed).item<double>());
      }
      return Statistics(all);
    };
    const Statistics small = losses(16, 1000), large = losses(64, 2000);
    f.measured = fmt::format("{:.4g} +- {:.1g} with 16 images, {:.4g} +- {:.1g} with 64", small.mean, small.error, large.mean, large.error);
    f.wanted = "equal within 6 standard errors";
    f.holds = std::abs(small.mean - large.mean) <= 6 * std::hypot(small.error, large.error) + 1e-4 * std::abs(large.mean);
  });
}

void check_random(std::vector<Finding>& findings, const Subject& s) {
  check(findings, {"the generator alone", "Equal seeds give equal bits; another seed draws other noise levels"}, [&](Finding& f) {
    const Tensor x0 = images(16, 4);
    const KnowingModel model(s.kind, Knows::images, x0);
    fill(model.offset, 0.3);
    const Tensor a = s.loss(model, x0, 1), b = s.loss(model, x0, 1);
    s.loss(model, x0, 2);
    const bool same = at::equal(a, b), other = model.calls.back().sigmas != model.calls.front().sigmas;
    f.measured =
        fmt::format("{}, {}", same ? "equal bits" : "two calls with one seed differ", other ? "other sigmas" : "one draw for two seeds");
    f.wanted = "equal bits, other sigmas", f.holds = same && other;
  });
  check(findings, {"sigmas of the schedule", "Noise levels are drawn from the schedule's range"}, [&](Finding& f) {
    const Tensor x0 = images(256, 4);
    const KnowingModel model(s.kind, Knows::images, x0);
    s.loss(model, x0, 1);
    const NoiseSchedule& n = model.schedule();
    const double lo = n.sigma(n.t_min()), hi = n.sigma(n.t_max());
    double least = INFINITY, most = 0;
    for (const double sigma : model.calls.front().sigmas) least = std::min(least, sigma), most = std::max(most, sigma);
    f.measured = fmt::format("from {:.4g} to {:.4g}", least, most), f.wanted = fmt::format("within [{:.4g}, {:.4g}]", lo, hi);
    f.holds = model.calls.front().sigmas.size() == 256 && least >= lo * (1 - 1e-9) && most <= hi * (1 + 1e-9);
  });
}

void check_noise(std::vector<Finding>& findings, const Subject& s) {
  const Law law{"x = x0 + sigma noise", "The network receives images with noise of the stated sigma, N(0, 1) and another for each image",
                "Karras et al. 2022, eq. 2"};
  check(findings, law, [&](Finding& f) {
    const Tensor x0 = images(256, 6);
    const KnowingModel model(s.kind, Knows::images, x0);
    s.loss(model, x0, 1);
    const KnowingModel::Call& call = model.calls.front();
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < 256; ++i)
      rows.push_back((call.x[i].to(at::kDouble) - x0[i].to(at::kDouble)).flatten() / call.sigmas.at(size_t(i)));
    double sum = 0, squares = 0, products = 0;
    const double count = 256.0 * 48;
    for (size_t i = 0; i < rows.size(); ++i) {
      sum += rows[i].sum().item<double>(), squares += rows[i].dot(rows[i]).item<double>();
      products += rows[i].dot(rows[(i + 1) % rows.size()]).item<double>();
    }
    const double mean = sum / count, variance = squares / count, correlation = products / count;
    f.measured = fmt::format("noise of mean {:.3f}, variance {:.3f}, correlation {:.3f} of neighbours", mean, variance, correlation);
    f.wanted = "0, 1, 0 within 5 standard errors";
    f.holds = std::abs(mean) < 5 / std::sqrt(count) && std::abs(variance - 1) < 5 * std::sqrt(2 / count) &&
              std::abs(correlation) < 5 / std::sqrt(count);
  });
}

void check_gradient(std::vector<Finding>& findings, const Subject& s, const char* where) {
  const Law law{fmt::format("a finite gradient on {}", where), "The loss is a float32 scalar, and it and its gradient are finite"};
  check(findings, law, [&](Finding& f) {
    const Tensor x0 = images(64, 7);
    const KnowingModel model(s.kind, Knows::images, x0);
    fill(model.offset, 0.5);
    const Tensor loss = s.loss(model, x0, 1);
    loss.backward();
    const bool scalar = loss.dim() == 0 && loss.scalar_type() == at::kFloat;
    const double gradient = model.offset.grad().defined() ? model.offset.grad().abs().sum().item<double>() : 0;
    f.measured = fmt::format("{}loss {:.3g}, gradient {:.3g}", scalar ? "" : "not a float32 scalar; ", loss.sum().item<double>(), gradient);
    f.wanted = "finite, the gradient not 0",
    f.holds = scalar && std::isfinite(loss.sum().item<double>()) && std::isfinite(gradient) && gradient > 0;
  });
}

}  // namespace

std::vector<Finding> conform(const Objective& objective) {
  std::vector<Finding> findings;
  std::string refusal;
  if (const OfCodes* codes = of_codes(objective)) return conform_codes(objective, *codes);
  if (dynamic_cast<const JointObjective*>(&objective)) return findings;  // its networks need a training
  const std::optional<Subject> subject = subject_of(objective, cosine_times(), refusal);
  check(findings,
        {"a model that it trains",
         "The objective accepts some model: v prediction, or a consistency model, with a learned variance or without"},
        [&](Finding& f) {
          f.measured = !subject                                          ? refusal
                       : subject->consistency                            ? "a consistency model"
                       : subject->kind.variance == LearnedVariance::none ? "v prediction"
                                                                         : "v prediction with a learned variance";
          f.wanted = "one", f.holds = subject.has_value();
        });
  if (!subject) return findings;
  if (!objective.denoises()) {
    check_random(findings, *subject);
    check_gradient(findings, *subject, "the cosine schedule");
    return findings;
  }
  check_minimum(findings, *subject);
  if (!subject->consistency) check_posterior_mean(findings, *subject);
  check_batch(findings, *subject);
  check_random(findings, *subject);
  check_noise(findings, *subject);
  check_gradient(findings, *subject, "the cosine schedule");
  if (const auto extreme = subject_of(objective, extreme_sigmas(), refusal)) check_gradient(findings, *extreme, "sigma from 1e-4 to 1e6");
  return findings;
}

}  // namespace brume
