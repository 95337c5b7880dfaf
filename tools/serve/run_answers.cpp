#include "serve/run_answers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/experiments/run_index.h"
#include "brume/experiments/run_query.h"
#include "brume/files/text_file.h"
#include "brume/train/metrics_file.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace); }

/// Returns the steps of the sample grids, in increasing order.
std::set<int64_t> grid_steps(const fs::path& run) {
  std::set<int64_t> steps;
  std::error_code error;
  for (auto entry = fs::directory_iterator(run / "samples", error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().stem().string();
    const auto step = name.starts_with("step_") ? parse_number<int64_t>(std::string_view(name).substr(5)) : std::nullopt;
    if (step && entry->path().extension() == ".png") steps.insert(*step);
  }
  return steps;
}

/// Returns a record without what the list of runs does not show.
Json summary_of(const RunRecord& record, const fs::path& folder) {
  Json json = Json::parse(record_text(record));
  json.erase("configuration");
  json.erase("evaluations");
  json["grids"] = grid_steps(folder / record.name);
  return json;
}

std::vector<RunRecord> records_of(const fs::path& folder) {
  return fs::is_directory(folder) ? list_runs(folder) : std::vector<RunRecord>();
}

}  // namespace

std::string runs_json(const fs::path& folder) {
  const std::vector<RunRecord> records = records_of(folder);
  const std::vector<std::string> differing = differing_keys(records);
  Json runs = Json::array();
  for (const RunRecord& record : records) {
    Json json = summary_of(record, folder);
    for (const std::string& key : differing)
      if (const auto at = record.configuration.find(key); at != record.configuration.end()) json["differs"][key] = at->second;
    runs.push_back(std::move(json));
  }
  return text_of({{"runs", runs}, {"differing", differing}});
}

std::optional<fs::path> run_directory(const fs::path& folder, const std::string& name) {
  if (!fs::is_directory(folder)) return {};
  for (const fs::path& run : find_runs(folder))
    if (run.lexically_relative(folder).string() == name) return run;
  return {};
}

std::string run_json(const fs::path& run, const std::string& name) {
  Json json = Json::parse(record_text(read_run(run, name)));
  json["grids"] = grid_steps(run);
  json["yaml"] = "";
  try {
    json["yaml"] = read_text((run / "config.yaml").string());
  } catch (const ConfigError& e) {
    json["note"] = e.problems().front().message;
  }
  return text_of(json);
}

std::string metrics_json(const fs::path& run, int64_t after) {
  Json figures = Json::object();
  int64_t last = after;
  for (const MetricsLine& line : read_metrics(run / "metrics.jsonl")) {
    if (line.step <= after) continue;
    last = std::max(last, line.step);
    for (const auto& [name, value] : line.figures) {
      figures[name]["step"].push_back(line.step);
      figures[name]["value"].push_back(std::isfinite(value) ? Json(value) : Json(nullptr));
    }
  }
  return text_of({{"step", last}, {"figures", figures}});
}

std::optional<fs::path> grid_file(const fs::path& run, int64_t step) {
  const fs::path file = run / "samples" / fmt::format("step_{:06}.png", step);
  return fs::is_regular_file(file) ? std::optional(file) : std::nullopt;
}

}  // namespace brume::tools
