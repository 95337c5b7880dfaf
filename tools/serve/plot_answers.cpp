#include "serve/plot_answers.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "plot/levels.h"
#include "plot/plot.h"
#include "plot/sampler_paths.h"

namespace brume::tools {
namespace {

using Json = nlohmann::ordered_json;

/// Lines of numbers of plugins, and why others have none.
struct Answer {
  Json drawn = Json::array(), refused = Json::array();

  /// Adds what `describe` says of each plugin.
  template <class I, class F>
  void add(const Registry& registry, const Words& words, const F& describe) {
    for (const std::string& word : words) try {
        Json one{{"name", label_of(word)}};
        describe(*make<I>(registry, word), one);
        drawn.push_back(std::move(one));
      } catch (const ConfigError& e) {
        refused.push_back({{"name", label_of(word)}, {"why", one_line(e)}});
      }
  }
};

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json pair_of(const Point& p) { return Json::array({p.x, p.y}); }

void add_paths(const Sampler& sampler, const PathSetting& setting, int64_t steps, Json& one) {
  const SamplerPaths paths = paths_of(sampler, setting, steps);
  for (const auto& way : paths.points) {
    Json line = Json::array();
    for (const PathMoment& m : way) line.push_back(pair_of(m.at));
    one["paths"].push_back(std::move(line));
  }
  for (const Point& p : paths.samples) one["samples"].push_back(pair_of(p));
}

}  // namespace

std::string schedules_json(const Registry& registry, const Words& schedules) {
  Answer answer;
  answer.add<NoiseSchedule>(registry, schedules, [](const NoiseSchedule& schedule, Json& one) {
    for (const NoiseLevel& l : noise_levels(schedule, 160)) {
      one["time"].push_back(l.share);
      one["alpha"].push_back(number(l.alpha));
      one["sigma"].push_back(number(l.sigma));
      one["log_snr"].push_back(number(l.log_snr));
      one["alpha_bar"].push_back(number(l.alpha_bar));
    }
  });
  return Json{{"schedules", answer.drawn}, {"refused", answer.refused}}.dump();
}

std::string spacings_json(const Registry& registry, const Words& spacings, const std::string& noise, int64_t steps) {
  const auto schedule = make<NoiseSchedule>(registry, noise);
  Answer answer;
  answer.add<Spacing>(registry, spacings, [&](const Spacing& spacing, Json& one) {
    for (const double sigma : spacing.sigmas(*schedule, steps)) {
      one["sigma"].push_back(number(sigma));
      one["t"].push_back(sigma > 0 ? number(schedule->time(sigma)) : Json(nullptr));
    }
  });
  return Json{{"spacings", answer.drawn}, {"t_min", schedule->t_min()}, {"t_max", schedule->t_max()}, {"refused", answer.refused}}.dump();
}

std::string samplers_json(const Registry& registry, const SamplerPlot& asked) {
  const PathSetting setting{make<NoiseSchedule>(registry, asked.noise), make<Spacing>(registry, asked.spacing), {}, asked.seed};
  setting.spacing->sigmas(*setting.schedule, asked.steps);
  ExactEnds exact(setting);
  Answer answer;
  answer.add<Sampler>(registry, asked.samplers, [&](const Sampler& sampler, Json& one) {
    add_paths(sampler, setting, asked.steps, one);
    if (!asked.errors || !has_order(sampler)) return;
    for (const SamplerCost& cost : costs_of(sampler, setting, exact)) {
      one["calls"].push_back(cost.calls);
      one["error"].push_back(number(cost.error));
    }
  });
  Json centres = Json::array();
  for (const Point& p : setting.data.centers()) centres.push_back(pair_of(p));
  return Json{{"samplers", answer.drawn}, {"centres", centres}, {"spread", Mixture::spread}, {"refused", answer.refused}}.dump();
}

}  // namespace brume::tools
