#include "numerics/timesteps.h"

#include <fmt/format.h>

#include "config/errors.h"

namespace brume {

void declare_final(Fields& f, FinalSigma& value) {
  f.choice("final", value, "where the run ends: sigma = 0, or the schedule's smallest sigma",
           {{"zero", FinalSigma::zero}, {"minimum", FinalSigma::minimum}});
}

std::vector<double> with_final(std::vector<double> sigmas, const NoiseSchedule& schedule, FinalSigma final_sigma) {
  sigmas.push_back(final_sigma == FinalSigma::zero ? 0 : schedule.sigma(schedule.t_min()));
  return sigmas;
}

std::vector<double> sigmas_at(const NoiseSchedule& schedule, const std::vector<double>& times, FinalSigma final_sigma) {
  std::vector<double> sigmas;
  for (size_t i = 0; i < times.size(); ++i) {
    if (times[i] < schedule.t_min() || times[i] > schedule.t_max())
      throw ConfigError(fmt::format("time {} is outside the schedule's [{}, {}]", times[i], schedule.t_min(), schedule.t_max()));
    if (i > 0 && times[i] >= times[i - 1])
      throw ConfigError(schedule.timesteps() > 0 ? fmt::format("{} steps are more than this spacing can take from {} training times",
                                                               times.size(), schedule.timesteps())
                                                 : fmt::format("time {} does not come before {}", times[i], times[i - 1]));
    sigmas.push_back(schedule.sigma(times[i]));
  }
  return with_final(std::move(sigmas), schedule, final_sigma);
}

}  // namespace brume
