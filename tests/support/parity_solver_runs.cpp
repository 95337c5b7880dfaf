// Running what parity_solvers.cpp says in brume's words, as the references do.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/parity_solvers.h"

namespace brume::test {

RecordingDenoiser::RecordingDenoiser(ScriptedNetwork network, const SchedulerConfig& config, std::vector<double> told)
    : network_(std::move(network)), config_(config), told_(std::move(told)) {}

Estimate RecordingDenoiser::denoise(const Tensor& x, double sigma, const Condition&) const {
  const Parameterization& q = *config_.parameterization;
  if (calls.size() >= told_.size()) throw std::runtime_error("the sampler asks more often than the reference");
  const double t = told_[calls.size()];
  double level = sigma;
  Tensor here = x;
  if (churn) {
    level = churn->levels.at(calls.size());
    if (const Tensor drawn = churn->noise->take(); drawn.defined())
      here = x - drawn * (churn->s_noise * std::sqrt((sigma - level) * (sigma + level)));
  }
  calls.push_back({here, level});
  const Tensor input = unscaled ? here : here * q.c_in(level, *config_.noise), out = network_(input, t);
  const Tensor f = out.size(1) == 2 * x.size(1) ? out.narrow(1, 0, x.size(1)) : out;  // without what it says of the variance
  if (churn && churn->skip_of_level) sigma = level;
  Estimate d;
  if (replace_x) {
    // The step continues from the scaled x: the slope is that of the scaled x, wherever the sampler measures it from.
    d.x0 = x - input + (input * q.c_skip(sigma) + f * q.c_out(sigma));
  } else {
    d.x0 = x * q.c_skip(sigma) + f * q.c_out(sigma);
  }
  return d;
}

void DiffusersSolver::take_rounded(std::vector<double>& sigmas) const {
  std::vector<double> rounded = request_.rounded_sigmas;
  if (is("FlowMatch") || is("IPNDM") || is("ScoreSdeVe") || flag("use_flow_sigmas") || rounded.empty()) return;
  if (two_calls_) rounded.erase(std::unique(rounded.begin(), rounded.end()), rounded.end());
  if (rounded.size() != sigmas.size()) return;
  // 1 - 0.999 of the cosine schedule, in float32, is off by 6e-5 at each of the last times.
  const bool cosine = get<std::string>("beta_schedule", "") == "squaredcos_cap_v2";
  for (size_t i = 0; i < sigmas.size(); ++i)
    EXPECT_NEAR(sigmas[i], rounded[i], (cosine && rounded[i] > 10 ? 2e-3 : 2e-4) * rounded[i]) << "sigma " << i;
  sigmas = rounded;
}

std::vector<double> DiffusersSolver::run_sigmas() const {
  std::vector<double> sigmas = config_.sigmas();
  if (is("DPMSolverMultistepInverse")) {
    sigmas.clear();
    for (const double t : request_.told) sigmas.push_back(config_.noise->sigma(t));
    sigmas.push_back(config_.noise->sigma(double(training_times_ - 1)));
    return sigmas;
  }
  if (repeat_last_) sigmas.back() = sigmas[sigmas.size() - 2];
  if (ends_by_table_) {  // the least sigma of the betas, taken for s
    std::string unsupported;
    sigmas.back() = flow_sigma(make<NoiseSchedule>(diffusers_noise_yaml(request_.config, 4096, unsupported))->sigma(0));
  }
  // diffusers keeps s = sigma / (1 + sigma) in float32, and 1 - s loses digits near s = 1.
  if (is("FlowMatch") || flag("use_flow_sigmas"))
    for (double& s : sigmas) s = flow_sigma(double(float(s / (1 + s))));
  take_rounded(sigmas);
  sigmas.erase(sigmas.begin(), sigmas.begin() + skipped_steps());
  return sigmas;
}

int64_t DiffusersSolver::skipped_steps() const { return two_calls_ ? (request_.start + 1) / 2 : request_.start; }

Tensor DiffusersSolver::noisy(const Tensor& x0, const Tensor& noise) const {
  const double sigma = run_sigmas().front();
  return (x0 + noise * sigma) * frame(sigma);
}

std::vector<Tensor> DiffusersSolver::run(const ScriptedNetwork& network, const Tensor& x, Noise& noise, bool replace_x) const {
  if (is("ScoreSdeVe")) return run_langevin(network, x, noise);
  if (is("PNDM") && !chains()) return run_torn(network, x, noise);
  if (is("LMS") && replace_x) return run_linear(network, x, noise);
  if (is("LMS") && request_.start > 0) return run_begun(network, x, noise);
  if (is("DPMSolverSinglestep") && request_.start % std::max<int64_t>(1, get<int64_t>("solver_order", 2)) != 0)
    return run_groups(network, x, noise);
  const std::vector<double> sigmas = run_sigmas();
  const auto recorder = std::make_shared<RecordingDenoiser>(
      network, config_, std::vector<double>(request_.told.begin() + request_.start, request_.told.end()));
  recorder->replace_x = replace_x;
  recorder->unscaled = request_.unscaled;
  RecordingNoise recorded(noise);
  const bool churns = request_.step.value("s_churn", 0.0) > 0;
  if (churns) {
    const bool v = is("Euler") && get<std::string>("prediction_type", "epsilon") == "v_prediction";
    recorder->churn = LateChurn{&recorded, sigmas, request_.step.value("s_noise", 1.0), v};
  }
  if (replace_x) return run_replacing(*recorder, x, sigmas, noise);
  std::shared_ptr<const Denoiser> denoiser = recorder;
  for (const auto& g : config_.sample.guidance) denoiser = g->wrap(denoiser, {config_.noise, no_models()});
  const Condition none;
  Run run{none, churns ? recorded : noise, {}, config_.noise.get()};
  const Tensor last = config_.sample.sampler->sample(*denoiser, x / frame(sigmas.front()), sigmas, run);
  std::vector<Tensor> seen;
  for (size_t k = 1; k < recorder->calls.size(); ++k) seen.push_back(recorder->calls[k].x * frame(recorder->calls[k].sigma));
  seen.push_back(last * frame(sigmas.back()));
  return seen;
}

/// Step by step, x scaled before each: possible for samplers that remember nothing between steps.
std::vector<Tensor> DiffusersSolver::run_replacing(const RecordingDenoiser& denoiser, Tensor x, const std::vector<double>& sigmas,
                                                   Noise& noise) const {
  const Condition none;
  std::vector<Tensor> seen;
  for (size_t i = 0; i + 1 < sigmas.size(); ++i) {
    Run run{none, noise, {}, config_.noise.get()};
    const double c_in = config_.parameterization->c_in(sigmas[i], *config_.noise);
    const size_t before = denoiser.calls.size();
    // The sampler starts from the scaled x; its first call must not scale again, which undoing it here achieves.
    class First final : public Denoiser {
     public:
      First(const RecordingDenoiser& inner, double scale) : inner_(inner), scale_(scale) {}
      Estimate denoise(const Tensor& y, double sigma, const Condition& c) const override {
        if (asked_) return inner_.denoise(y, sigma, c);
        asked_ = true;
        Estimate d = inner_.denoise(y / scale_, sigma, c);
        d.x0 = d.x0 - y / scale_ + y;
        return d;
      }

     private:
      const RecordingDenoiser& inner_;
      double scale_;
      mutable bool asked_ = false;
    };
    x = config_.sample.sampler->sample(First(denoiser, c_in), x * c_in, {sigmas[i], sigmas[i + 1]}, run);
    for (size_t k = before + 1; k < denoiser.calls.size(); ++k) seen.push_back(denoiser.calls[k].x);
    seen.push_back(x);
  }
  return seen;
}

/// LMS with x scaled before each step: its increments, which are sums of slopes, are those of the scaled x.
std::vector<Tensor> DiffusersSolver::run_linear(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  class Increments final : public Denoiser {
   public:
    Increments(const ScriptedNetwork& network, const SchedulerConfig& config, std::vector<double> told, double begin)
        : network_(network), config_(config), told_(std::move(told)), begin_(begin) {}
    Estimate denoise(const Tensor& y, double sigma, const Condition&) const override {
      const Parameterization& q = *config_.parameterization;
      Estimate d;
      d.x0 = y;
      if (sigma > begin_) return d;  // a slope that a run begun midway does not have counts as 0
      if (asked_ > 0) seen.push_back(moved(y));
      scaled_ = (asked_ > 0 ? seen.back() : y) * q.c_in(sigma, *config_.noise);
      before_ = y;
      const Tensor f = network_(scaled_, told_.at(asked_++));
      d.x0 = y - (scaled_ - (scaled_ * q.c_skip(sigma) + f * q.c_out(sigma)));
      return d;
    }
    Tensor moved(const Tensor& y) const { return scaled_ + (y - before_); }
    mutable std::vector<Tensor> seen;

   private:
    const ScriptedNetwork& network_;
    const SchedulerConfig& config_;
    std::vector<double> told_;
    double begin_;
    mutable size_t asked_ = 0;
    mutable Tensor scaled_, before_;
  };
  std::vector<double> sigmas = config_.sigmas();
  take_rounded(sigmas);
  const size_t start = size_t(request_.start), from = start - std::min<size_t>(start, request_.step.value("order", size_t(4)) - 1);
  const Increments denoiser(network, config_, {request_.told.begin() + int64_t(start), request_.told.end()}, sigmas[start]);
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  const Tensor last = config_.sample.sampler->sample(denoiser, x, {sigmas.begin() + int64_t(from), sigmas.end()}, run);
  std::vector<Tensor> seen = denoiser.seen;
  seen.push_back(denoiser.moved(last));
  return seen;
}

/// Single-step solvers begun within a group: the rest of that group is one of its own, then the run goes on group by group.
std::vector<Tensor> DiffusersSolver::run_groups(const ScriptedNetwork& network, Tensor x, Noise& noise) const {
  const std::vector<double> sigmas = run_sigmas();
  const int64_t order = get<int64_t>("solver_order", 2), rest = order - request_.start % order;
  std::shared_ptr<RecordingDenoiser> recorder;
  std::vector<Tensor> seen;
  int64_t first = 0;
  for (const int64_t last : {rest, int64_t(sigmas.size()) - 1}) {
    recorder = std::make_shared<RecordingDenoiser>(
        network, config_, std::vector<double>(request_.told.begin() + request_.start + first, request_.told.end()));
    std::shared_ptr<const Denoiser> denoiser = recorder;
    for (const auto& g : config_.sample.guidance) denoiser = g->wrap(denoiser, {config_.noise, no_models()});
    const Condition none;
    Run run{none, noise, {}, config_.noise.get()};
    const std::vector<double> part(sigmas.begin() + first, sigmas.begin() + last + 1);
    x = config_.sample.sampler->sample(*denoiser, x / frame(part.front()), part, run) * frame(part.back());
    for (size_t k = 1; k < recorder->calls.size(); ++k) seen.push_back(recorder->calls[k].x * frame(recorder->calls[k].sigma));
    seen.push_back(x);
    first = last;
  }
  return seen;
}

/// LMS begun midway weighs slopes it does not have, as if they were 0: the run begins three steps earlier, with an estimate that is x.
std::vector<Tensor> DiffusersSolver::run_begun(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  class Begun final : public Denoiser {
   public:
    Begun(const RecordingDenoiser& inner, double begin) : inner_(inner), begin_(begin) {}
    Estimate denoise(const Tensor& y, double sigma, const Condition& c) const override {
      if (sigma <= begin_) return inner_.denoise(y, sigma, c);
      Estimate d;
      d.x0 = y;
      return d;
    }

   private:
    const RecordingDenoiser& inner_;
    double begin_;
  };
  const std::vector<double> sigmas = config_.sigmas();
  const size_t start = size_t(request_.start), from = start - std::min<size_t>(start, request_.step.value("order", size_t(4)) - 1);
  const RecordingDenoiser recorder(network, config_, {request_.told.begin() + int64_t(start), request_.told.end()});
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  const Tensor last =
      config_.sample.sampler->sample(Begun(recorder, sigmas[start]), x, {sigmas.begin() + int64_t(from), sigmas.end()}, run);
  std::vector<Tensor> seen;
  for (size_t k = 1; k < recorder.calls.size(); ++k) seen.push_back(recorder.calls[k].x);
  seen.push_back(last);
  return seen;
}

/// PNDM if a step ends at g, and the next takes that x to be at its own sigma: x changes by the factor c = signal(g) / signal(next).
/// y = x / (c_0 c_1 ...) then follows the sampler over a grid of its own, s' = s + (g - sigma) / (c_0 c_1 ...), with the same noise.
std::vector<Tensor> DiffusersSolver::run_torn(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  const std::vector<double> times = config_times();
  const double stride = double(training_times_ / steps_), last_sigma = config_.sigmas().back();
  const NoiseSchedule& schedule = *config_.noise;
  std::vector<double> real, grid, factor{1};
  for (const double t : times) real.push_back(schedule.sigma(t));
  real.push_back(last_sigma);
  grid.push_back(real[0]);
  for (size_t i = 0; i < times.size(); ++i) {
    const double g = times[i] >= stride ? schedule.sigma(times[i] - stride) : last_sigma;
    grid.push_back(grid[i] + (g - real[i]) / factor[i]);
    factor.push_back(factor[i] * config_.signal(g) / config_.signal(i + 1 < times.size() ? real[i + 1] : g));
  }
  class Torn final : public Denoiser {
   public:
    Torn(const RecordingDenoiser& inner, const std::vector<double>& grid, const std::vector<double>& real,
         const std::vector<double>& factor)
        : inner_(inner), grid_(grid), real_(real), factor_(factor) {}
    Estimate denoise(const Tensor& y, double s, const Condition& c) const override {
      const size_t i = size_t(std::find(grid_.begin(), grid_.end(), s) - grid_.begin());
      const Tensor here = y * factor_[i];
      Estimate d;
      d.x0 = y - (here - inner_.denoise(here, real_[i], c).x0) * (s / real_[i]);
      return d;
    }

   private:
    const RecordingDenoiser& inner_;
    const std::vector<double>&grid_, &real_, &factor_;
  };
  const RecordingDenoiser recorder(network, config_, request_.told);
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  const Tensor y = config_.sample.sampler->sample(Torn(recorder, grid, real, factor), x / config_.signal(real[0]), grid, run);
  std::vector<Tensor> seen;
  for (size_t k = 1; k < recorder.calls.size(); ++k) seen.push_back(recorder.calls[k].x * config_.signal(recorder.calls[k].sigma));
  const double end = times.back() >= stride ? schedule.sigma(times.back() - stride) : last_sigma;
  seen.push_back(y * (factor.back() * config_.signal(end)));
  return seen;
}

/// ScoreSdeVe: the network gives the score, and the last step adds noise too.
std::vector<Tensor> DiffusersSolver::run_langevin(const ScriptedNetwork& network, const Tensor& x, Noise& noise) const {
  const std::vector<double> sigmas = run_sigmas();
  class Score final : public Denoiser {
   public:
    Score(const ScriptedNetwork& network, const std::vector<double>& told, size_t calls, bool every_call)
        : network_(network), told_(told), calls_(calls), every_call_(every_call) {}
    Estimate denoise(const Tensor& y, double sigma, const Condition&) const override {
      const size_t step = asked_ / calls_;
      if (asked_ > 0 && (every_call_ || asked_ % calls_ == 0)) seen.push_back(y);
      ++asked_;
      Estimate d;
      d.x0 = y + network_(y, told_.at(step)) * (sigma * sigma);
      return d;
    }
    mutable std::vector<Tensor> seen;

   private:
    const ScriptedNetwork& network_;
    const std::vector<double>& told_;
    size_t calls_;
    bool every_call_;
    mutable size_t asked_ = 0;
  };
  const double lo = get("sigma_min", 0.01), hi = get("sigma_max", 1348.0);
  std::vector<double> told;
  for (size_t i = 0; i < request_.told.size(); ++i)  // its tests tell sigmas of another number of steps
    told.push_back(request_.rounded_sigmas.empty() ? lo * std::pow(hi / lo, request_.told[i]) : request_.rounded_sigmas[i]);
  const Score denoiser(network, told, size_t(get<int64_t>("correct_steps", 1)) + 1, request_.every_call);
  const Condition none;
  Run run{none, noise, {}, config_.noise.get()};
  Tensor last = config_.sample.sampler->sample(denoiser, x, sigmas, run);
  last = last + noise.draw(last, lo, 0) * sigmas[sigmas.size() - 2];
  std::vector<Tensor> seen = denoiser.seen;
  seen.push_back(last);
  return seen;
}

}  // namespace brume::test
