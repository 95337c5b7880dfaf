// Importance sampling by the loss (Improved DDPM, Nichol & Dhariwal 2021, eq. 18): a time is drawn in proportion to the root of the mean
// square of its last losses, and its loss divided by how much more often than evenly that is. Even until every time has its history.
//
//   p_t ~ sqrt(E[L_t^2]) mixed with uniform_prob of the even distribution,   weight = 1 / (T p_t)
//
// A continuous schedule is divided into `bins`, and time is even within each.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "brume/config/registry.h"
#include "brume/core/time_sampler.h"

namespace brume::plugins {
namespace {

class LossSecondMoment final : public TimeSampler {
 public:
  struct Options {
    int64_t history = 10, bins = 100;
    double uniform_prob = 0.001;
    void declare(Fields& f) {
      f.field("history", history, "losses remembered for each time", within(1, 10000));
      f.field("uniform_prob", uniform_prob, "share of the even distribution", within(0, 1));
      f.field("bins", bins, "bins of a continuous schedule; a discrete one has its training times", within(1, 1000000));
    }
  };
  explicit LossSecondMoment(const Options& o) : o_(o) {}

  std::vector<Weight> memory(const NoiseSchedule& schedule) const override {
    return {{"loss_history", at::zeros({bins(schedule), o_.history}, at::TensorOptions().dtype(at::kDouble)), false},
            {"loss_counts", at::zeros({bins(schedule)}, at::TensorOptions().dtype(at::kLong)), false}};
  }

  Draw draw(const NoiseSchedule& schedule, int64_t count, const std::vector<Weight>& memory, at::Generator& random) const override {
    const Tensor p = probabilities(memory);
    if (count == 0) return {};
    const Tensor drawn = at::multinomial(p, count, true, random);
    const Tensor within_bin = at::rand({count}, random, p.options());
    const double n = double(p.size(0));
    Draw d;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t bin = drawn.data_ptr<int64_t>()[i];
      const double u = schedule.timesteps() > 0 ? 0.5 : within_bin.data_ptr<double>()[i];
      d.sigmas.push_back(sigma_at_share(schedule, (double(bin) + u) / n));
      d.weights.push_back(1 / (n * p.data_ptr<double>()[bin]));
    }
    return d;
  }

  void learn(const NoiseSchedule& schedule, const Draw& d, const Tensor& losses, const std::vector<Weight>& memory) const override {
    const Tensor values = losses.to(at::kCPU, at::kDouble).contiguous();
    double* history = memory[0].tensor.data_ptr<double>();
    int64_t* counts = memory[1].tensor.data_ptr<int64_t>();
    for (size_t i = 0; i < d.sigmas.size(); ++i) {
      const double loss = values.data_ptr<double>()[i];
      if (!std::isfinite(loss)) continue;
      const int64_t bin = bin_of(schedule, d.sigmas[i]);
      double* row = history + bin * o_.history;
      if (counts[bin] == o_.history)
        std::copy(row + 1, row + o_.history, row), row[o_.history - 1] = loss;  // the oldest goes
      else
        row[counts[bin]++] = loss;
    }
  }

 private:
  int64_t bins(const NoiseSchedule& schedule) const { return schedule.timesteps() > 0 ? schedule.timesteps() : o_.bins; }

  int64_t bin_of(const NoiseSchedule& schedule, double sigma) const {
    const double t = schedule.time(sigma);
    if (schedule.timesteps() > 0) return int64_t(std::nearbyint(t));
    const double share = (t - schedule.t_min()) / (schedule.t_max() - schedule.t_min());
    return std::clamp<int64_t>(int64_t(share * double(o_.bins)), 0, o_.bins - 1);
  }

  /// Returns [T], summing to 1.
  Tensor probabilities(const std::vector<Weight>& memory) const {
    if (memory.size() != 2) throw std::logic_error("loss_second_moment was given no memory");
    const Tensor &history = memory[0].tensor, &counts = memory[1].tensor;
    const double n = double(history.size(0));
    Tensor even = at::ones({history.size(0)}, history.options()) / n;
    if (counts.min().item<int64_t>() < o_.history) return even;
    const Tensor size = history.square().mean(1).sqrt();
    const double sum = size.sum().item<double>();
    return sum > 0 ? size / sum * (1 - o_.uniform_prob) + even * o_.uniform_prob : even;
  }
  Options o_;
};

}  // namespace

void register_time_sampler_loss_second_moment(Registry& r) {
  r.add<TimeSampler, LossSecondMoment>("loss_second_moment", "times of large loss more often, weighted back (Improved DDPM)");
}

}  // namespace brume::plugins
