// What a Trainer does for the other processes of its world.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/version.h>

#include "brume/config/counted.h"
#include "brume/config/number.h"
#include "brume/config/version.h"
#include "brume/config/yaml.h"
#include "brume/core/processors.h"
#include "brume/core/warnings.h"
#include "brume/train/accumulation.h"
#include "brume/train/data_parallel.h"
#include "brume/train/trainer.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

int64_t whole_number(const Value* v, int64_t otherwise) {
  return v && v->is_scalar() ? parse_number<int64_t>(v->scalar).value_or(otherwise) : otherwise;
}

}  // namespace

void Trainer::divide(const fs::path& resume_from) {
  if (!resume_from.empty()) keep_parts(resume_from);
  const TrainOptions& t = *config_.train;
  const int64_t parts = world_->size() * t.accumulate;
  if (t.batch % parts != 0)
    throw ConfigError(fmt::format("train.batch = {} cannot be divided by {}{}", t.batch, counted(world_->size(), "process"),
                                  t.accumulate > 1 ? fmt::format(" of {} each (train.accumulate)", counted(t.accumulate, "part")) : ""));
  if (world_->size() > 1 && config_.compute.device == "cuda") config_.compute.device = fmt::format("cuda:{}", world_->local_rank());
  compute_ = resolve_compute(config_.compute);
  if (world_->size() > 1 && config_.compute.threads == 0) at::set_num_threads(int(threads_per_process(world_->local_size())));
}

void Trainer::keep_parts(const fs::path& training_file) {
  std::map<std::string, std::string> entries;
  load_tensors(training_file.string(), &entries);
  const Value stored = training_configuration(training_file);
  const Value* section = stored.find("train");
  const int64_t processes = parse_number<int64_t>(entries[metadata_key::processes]).value_or(1);
  const int64_t before = section ? whole_number(section->find("accumulate"), 1) : 1;
  if (processes == world_->size() || before != config_.train->accumulate) return;
  const int64_t parts = processes * before;
  if (parts % world_->size() != 0) return;
  config_.train->accumulate = parts / world_->size();
  resolved_.find("train")->set("accumulate", Value::text(std::to_string(config_.train->accumulate)));
  if (world_->leads() && before != config_.train->accumulate)
    warn(fmt::format("train.accumulate is {} instead of {}: {} computed a batch in {} before, and {} do now", parts / world_->size(),
                     before, counted(processes, "process"), counted(parts, "part"), world_->size()));
}

BatchRows Trainer::rows() const {
  const int64_t count = config_.train->batch / world_->size();
  return {world_->rank() * count, count};
}

void Trainer::compare_processes() const {
  if (world_->size() == 1) return;
  check_agreement(fmt::format("brume {} with LibTorch {} in {}, on {} training images", version(), TORCH_VERSION,
                              compute_.dtype == at::kBFloat16 ? "bf16" : "fp32", data_->size()),
                  resolved_, model_, *world_);
}

bool Trainer::asked_to_stop(const TrainCallbacks& callbacks) const {
  return (callbacks.stop && callbacks.stop()) || std::chrono::steady_clock::now() >= end_;
}

void Trainer::agree(BatchFigures& figures, Window& window, const TrainCallbacks& callbacks) {
  if (world_->size() == 1) return;
  std::vector<double> numbers{asked_to_stop(callbacks) ? 1.0 : 0.0, double(window.unread), figures.loss};
  for (const auto& [_, value] : figures.metrics) numbers.push_back(value);
  sum_numbers(numbers, *world_);
  stop_ = stop_ || numbers[0] > 0;
  if (world_->leads()) window.unread = int64_t(numbers[1]);
  if (!world_->leads()) window.unread = 0;
  figures.loss = numbers[2];
  for (size_t i = 0; i < figures.metrics.size(); ++i) figures.metrics[i].second = numbers[3 + i];
}

void Trainer::save_together() {
  optimization_->gather();
  if (world_->leads())
    save();
  else
    saved_ = step_;
}

}  // namespace brume
