#include "brume/experiments/run_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/experiments/evaluations.h"
#include "brume/files/text_file.h"
#include "brume/train/metrics_file.h"
#include "brume/train/resuming.h"
#include "brume/train/tensorboard.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

void add(RunRecord& record, const std::string& name, double value) {
  const auto [at, fresh] = record.figures.emplace(name, RunFigure{value, value});
  if (fresh) return;
  at->second.last = value;
  if (larger_is_better(name) ? value > at->second.best : value < at->second.best) at->second.best = value;
}

void read_configuration_of(const fs::path& file, RunRecord& record) {
  if (!fs::exists(file)) {
    record.note = "has no config.yaml";
    return;
  }
  for (const auto& [path, value] : scalars_of(parse_stored_yaml(read_text(file.string()), file.string())))
    record.configuration[path] = value.scalar;
  const auto steps = record.configuration.find("train.steps");
  if (steps != record.configuration.end()) record.steps = parse_number<int64_t>(steps->second).value_or(0);
  if (record.steps == 0) {
    record.state = RunState::other_version;
    record.note = "config.yaml has no train.steps";
  }
}

/// Returns true if a newer brume wrote the file in a layout that this one does not read.
bool of_newer_layout(const ModelMetadata& metadata) {
  const std::string* format = metadata.text("format");
  return format && parse_number<int64_t>(*format).value_or(0) > model_format;
}

/// Reads the step of the checkpoint.
void read_checkpoint(const fs::path& file, RunRecord& record) {
  if (!fs::exists(file)) {
    record.note = "has no checkpoint";
    return;
  }
  try {
    ModelMetadata::Entries entries;
    load_tensors(file.string(), &entries);
    const ModelMetadata metadata(std::move(entries));
    if (of_newer_layout(metadata)) record.state = RunState::other_version;
    check_training(metadata, file);
    metadata.check_format(file.string());
    metadata.required("config", file.string());
    record.step = metadata.step(file.string());
    record.state = record.step >= record.steps ? RunState::done : RunState::stopped;
  } catch (const ConfigError& e) {
    record.note = e.problems().front().message;
  }
}

}  // namespace

const char* text_of(RunState state) {
  switch (state) {
    case RunState::done: return "done";
    case RunState::stopped: return "stopped";
    case RunState::half_written: return "half written";
    case RunState::other_version: return "other version";
  }
  return "";
}

bool of_machine(const std::string& figure) {
  return figure == "images_per_second" || figure == "data_share" || figure == "memory_mb" || figure == "seconds";
}

bool larger_is_better(const std::string& figure) {
  for (const char* word : {"accuracy", "precision", "recall", "density", "coverage", "score", "psnr", "ssim", "right", "images_per_second"})
    if (figure.find(word) != figure.npos) return true;
  return false;
}

bool is_run(const fs::path& directory) {
  std::error_code none;
  for (const char* file : {"config.yaml", "metrics.jsonl", "training.safetensors"})
    if (fs::is_regular_file(directory / file, none)) return true;
  return false;
}

std::vector<fs::path> find_runs(const fs::path& directory) {
  if (!fs::is_directory(directory)) throw ConfigError(fmt::format("{}: no such directory", directory.string()));
  std::vector<fs::path> found, next{directory};
  while (!next.empty()) {
    const fs::path at = next.back();
    next.pop_back();
    if (is_run(at)) {
      found.push_back(at);
      continue;
    }
    std::error_code error;
    for (auto entry = fs::directory_iterator(at, error); !error && entry != fs::directory_iterator(); entry.increment(error))
      if (entry->is_directory(error) && !entry->is_symlink(error)) next.push_back(entry->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

RunRecord read_run(const fs::path& directory, const std::string& name) {
  RunRecord record{name};
  try {
    read_configuration_of(directory / "config.yaml", record);
    if (record.note.empty()) read_checkpoint(directory / "training.safetensors", record);
  } catch (const ConfigError& e) {
    record.note = e.problems().front().text();
  }
  for (const MetricsLine& line : read_metrics(directory / "metrics.jsonl")) {
    record.step = std::max(record.step, line.step);
    for (const auto& [figure, value] : line.figures) add(record, figure, value);
  }
  record.evaluations = read_evaluations(directory);
  for (const Evaluation& e : record.evaluations)
    for (const auto& [figure, value] : e.figures) add(record, figure, value);
  return record;
}

std::string record_text(const RunRecord& r) {
  nlohmann::ordered_json figures = nlohmann::ordered_json::object(), evaluations = nlohmann::ordered_json::array();
  for (const auto& [name, f] : r.figures) figures[name] = {{"last", f.last}, {"best", f.best}};
  for (const Evaluation& e : r.evaluations) {
    nlohmann::ordered_json one{{"file", e.file}, {"set", e.set}, {"steps", e.steps}, {"sampler", e.sampler}, {"figures", e.figures}};
    if (e.scale) one["scale"] = *e.scale;
    evaluations.push_back(std::move(one));
  }
  return nlohmann::ordered_json{{"name", r.name},   {"state", text_of(r.state)},        {"note", r.note},     {"step", r.step},
                                {"steps", r.steps}, {"configuration", r.configuration}, {"figures", figures}, {"evaluations", evaluations}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace brume
