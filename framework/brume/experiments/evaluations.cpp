#include "brume/experiments/evaluations.h"

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/files/json.h"
#include "brume/files/text_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Returns the number after `word` in the name of a set, "cfg 2" or "20 steps, cfg 2".
std::optional<double> number_after(const std::string& name, const std::string& word) {
  const size_t at = name.find(word + " ");
  if (at == name.npos) return {};
  std::string_view rest = std::string_view(name).substr(at + word.size() + 1);
  return take_number<double>(rest);
}

void add_figures(const nlohmann::json& json, Evaluation& e) {
  for (const auto& [name, value] : json.items())
    if (value.is_number() && name != "seed" && name != "steps" && name != "images" && name != "cfg") e.figures[name] = value.get<double>();
}

Evaluation evaluation_of(const nlohmann::json& set, const nlohmann::json& file, const std::string& name) {
  Evaluation e{name, "", 0};
  if (const auto at = set.find("name"); at != set.end() && at->is_string()) e.set = at->get<std::string>();
  for (const nlohmann::json* of : {&file, &set})
    if (const auto at = of->find("steps"); at != of->end() && at->is_number_integer()) e.steps = at->get<int64_t>();
  const auto scale = set.find("cfg"), sampler = set.find("sampler");
  e.scale = scale != set.end() && scale->is_number() ? scale->get<double>() : number_after(e.set, "cfg");
  if (sampler != set.end() && sampler->is_string()) e.sampler = sampler->get<std::string>();
  const auto figures = set.find("figures");
  add_figures(figures != set.end() && figures->is_object() ? *figures : set, e);
  return e;
}

}  // namespace

std::vector<Evaluation> read_evaluations(const fs::path& run) {
  std::vector<fs::path> files;
  std::error_code error;
  for (auto entry = fs::directory_iterator(run, error); !error && entry != fs::directory_iterator(); entry.increment(error))
    if (entry->path().extension() == ".json") files.push_back(entry->path());
  std::sort(files.begin(), files.end());
  std::vector<Evaluation> all;
  for (const fs::path& file : files) {
    nlohmann::json json(nlohmann::json::value_t::discarded);
    try {
      json = json_or_discarded(read_text(file.string()));
    } catch (const ConfigError&) {
      continue;
    }
    if (!json.is_object()) continue;
    const auto sets = json.find("sets");
    const bool listed = sets != json.end() && sets->is_array();
    for (const nlohmann::json& set : listed ? *sets : nlohmann::json::array({json})) {
      if (!set.is_object()) continue;
      Evaluation e = evaluation_of(set, json, file.filename().string());
      if (!e.figures.empty() && e.set != "real" && e.set != "baseline") all.push_back(std::move(e));
    }
  }
  return all;
}

}  // namespace brume
