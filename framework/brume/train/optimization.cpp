#include "brume/train/optimization.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <stdexcept>

#include "brume/config/counted.h"
#include "brume/config/foreign.h"
#include "brume/config/name_patterns.h"
#include "brume/train/data_parallel.h"

namespace brume {
namespace {

/// Keeps the names of the model's weights, those of other modules are set apart: training files have had both from the beginning.
std::vector<Weight> named(const TrainedModule& module, bool model) { return model ? module.weights : prefixed("helpers.", module.weights); }

std::vector<Weight> trainable(const std::vector<Weight>& weights) {
  std::vector<Weight> some;
  std::copy_if(weights.begin(), weights.end(), std::back_inserter(some), [](const Weight& w) { return w.trainable; });
  return some;
}

void append(std::vector<Weight>& all, const std::string& prefix, const std::vector<Weight>& weights) {
  for (const Weight& w : weights) all.push_back({prefix + w.name, w.tensor, false});
}

}  // namespace

std::vector<std::string> names_of(const std::vector<Weight>& weights) {
  std::vector<std::string> names;
  names.reserve(weights.size());
  for (const Weight& w : weights) names.push_back(w.name);
  return names;
}

std::map<std::string, Optimizer::Own> own_settings(const std::vector<WeightGroupOptions>& groups, const std::vector<Weight>& weights) {
  std::map<std::string, Optimizer::Own> all;
  const std::vector<std::string> names = names_of(weights);
  for (size_t i = 0; i < groups.size(); ++i) {
    const std::string path = fmt::format("train.groups.{}.match", i);
    const std::set<std::string> matched = matching(groups[i].match, names, path);
    bool used = false;
    for (const Weight& w : weights)
      if (w.trainable && matched.contains(w.name)) all[w.name] = {groups[i].lr, groups[i].weight_decay}, used = true;
    const bool encoder = !matched.empty() && matched.begin()->starts_with("conditioner.");
    if (!used)
      throw ConfigError({Problem{{},
                                 path,
                                 fmt::format("'{}' matches no weight that is trained{}", groups[i].match,
                                             encoder ? "; model.conditioner.trainable: true trains a text encoder" : "")}});
  }
  return all;
}

Optimization::Optimization(std::vector<TrainedModule> modules, int64_t steps, World& world, bool sharded)
    : world_(world), sharded_(sharded && world.size() > 1), modules_(std::move(modules)) {
  if (modules_.empty() || !modules_.front().optimizer || !modules_.front().ema)
    throw std::logic_error("a training needs a model with an optimizer and a moving average");
  for (const TrainedModule& module : modules_) {
    const bool model = &module == &modules_.front();
    const size_t group = module.optimizer ? add_group(module) : 0;
    for (Weight& w : trainable(named(module, model))) {
      const auto own = module.own.find(w.name);
      groups_[group].own.push_back(own == module.own.end() ? Optimizer::Own{} : own->second);
      groups_[group].weights.push_back(std::move(w));
    }
  }
  for (size_t i = 0, group = 0; i < modules_.size(); ++i)
    if (modules_[i].optimizer) make_optimizer(groups_[group++], modules_[i].optimizer, steps);
  for (size_t m = 0, group = 0; m < modules_.size(); ++m) {
    const TrainedModule& module = modules_[m];
    if (m > 0 && module.optimizer) ++group;
    for (size_t i = 0; module.ema && i < averages_of(*module.ema); ++i)
      averages_.push_back(
          {module.optimizer ? group : 0, std::make_unique<Ema>(averaged_here(named(module, m == 0)), *module.ema, i), i, m == 0});
  }
  std::vector<Weight> all;
  for (const Group& group : groups_) all.insert(all.end(), group.weights.begin(), group.weights.end());
  for (const Weight& w : all) Tensor(w.tensor).set_requires_grad(true);
  gradients_ = std::make_unique<GradientSum>(std::move(all), world_);
}

Optimization::~Optimization() = default;

void Optimization::make_optimizer(Group& g, const Deferred<Optimizer>& optimizer, int64_t steps) {
  Optimizer::Context context{{}, std::max<int64_t>(1, (steps - g.start + g.every - 1) / g.every)};
  if (sharded_) g.owners = owners_of(g.weights, world_.size());
  for (size_t i = 0; i < g.weights.size(); ++i) {
    if (sharded_) owner_of_[g.weights[i].name] = g.owners[i];
    if (sharded_ && g.owners[i] != world_.rank()) continue;
    context.weights.push_back(g.weights[i]);
    context.own.push_back(g.own[i]);
  }
  if (sharded_) context.counted = g.weights;
  g.owned = context.weights;
  g.optimizer = optimizer.make(context);
}

std::vector<Weight> Optimization::averaged_here(const std::vector<Weight>& weights) const {
  if (!sharded_) return weights;
  std::vector<Weight> some;
  for (const Weight& w : weights) {
    const auto owner = owner_of_.find(w.name);
    if (owner == owner_of_.end() || owner->second == world_.rank()) some.push_back(w);
  }
  return some;
}

size_t Optimization::add_group(const TrainedModule& module) {
  groups_.push_back({module.name, module.start, module.every});
  return groups_.size() - 1;
}

bool Optimization::update(int64_t step) {
  bool finite = true;
  gathered_ = false;
  whole_.clear();
  for (Average& average : averages_) average.whole.clear();
  for (Group& group : groups_) {
    group.updated = false;
    if (!group.due(step)) {
      for (const Weight& w : group.weights) w.tensor.mutable_grad().reset();
      continue;
    }
    group.norm = calling(*group.optimizer, "update()", [&] { return group.optimizer->update(group.count(step)); });
    group.updated = std::isfinite(group.norm);
    if (sharded_) {
      for (const Weight& w : group.weights) w.tensor.mutable_grad().reset();
      if (group.updated) share_weights(group.weights, group.owners, world_);
    }
    finite = finite && group.updated;
  }
  return finite;
}

std::map<std::string, Tensor> Optimization::Group::evaluated() const {
  const std::vector<Tensor> values = calling(*optimizer, "evaluated()", [&] { return optimizer->evaluated(); });
  if (!values.empty() && values.size() != owned.size())
    blame(optimizer.get(),
          fmt::format("evaluated() returned {} for {}", counted(values.size(), "tensor"), counted(owned.size(), "weight")));
  std::map<std::string, Tensor> all;
  for (size_t i = 0; i < values.size(); ++i) all.emplace(owned[i].name, values[i]);
  return all;
}

void Optimization::average(int64_t step, bool buffers) {
  for (const Average& average : averages_) {
    const Group& group = groups_[average.group];
    if (group.updated) average.ema->update(group.count(step), group.evaluated());
  }
  for (const Average& average : averages_)
    if (buffers && average.model) average.ema->take_buffers();
}

Metrics Optimization::figures(int64_t step) const {
  const Group& model = groups_.front();
  Metrics all{
      {"grad_norm", model.norm}, {"lr", model.optimizer->learning_rate(model.count(step))}, {"ema_decay", ema().decay(model.count(step))}};
  for (const auto& [name, value] : model.optimizer->figures()) all.emplace_back(name, value);
  for (size_t i = 1; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    all.emplace_back(group.name + ".grad_norm", group.norm);
    all.emplace_back(group.name + ".lr", group.optimizer->learning_rate(group.count(step)));
  }
  return all;
}

std::vector<std::vector<Weight>> Optimization::model_averages() const {
  std::vector<std::vector<Weight>> all;
  for (const Average& average : averages_)
    if (average.model) all.push_back(average.shadow());
  return all;
}

std::string Optimization::Average::prefix() const { return number == 0 ? "ema." : fmt::format("ema{}.", number); }

std::vector<Weight> Optimization::sharded_state() const {
  std::vector<Weight> all;
  for (const Average& average : averages_) append(all, average.prefix(), average.ema->shadow());
  for (const Group& group : groups_)
    append(all, group.name.empty() ? "optimizer." : "optimizers." + group.name + ".", group.optimizer->state());
  return all;
}

void Optimization::gather() {
  if (!sharded_ || gathered_) return;
  whole_ = collect(sharded_state(), world_);
  gathered_ = true;
  if (!world_.leads()) return;
  std::map<std::string, Tensor> by_name;
  for (const Weight& w : whole_) by_name.emplace(w.name, w.tensor);
  for (Average& average : averages_)
    if (average.model)
      for (const Weight& w : modules_.front().weights)
        average.whole.push_back({w.name, by_name.at(average.prefix() + w.name), w.trainable});
}

std::vector<Weight> Optimization::state() const {
  std::vector<Weight> all;
  append(all, "weights.", modules_.front().weights);
  for (size_t i = 1; i < modules_.size(); ++i) append(all, "helpers.", modules_[i].weights);
  const std::vector<Weight> parted = gathered_ ? whole_ : sharded_state();
  all.insert(all.end(), parted.begin(), parted.end());
  return all;
}

}  // namespace brume
