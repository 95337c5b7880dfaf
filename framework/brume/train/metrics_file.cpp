#include "brume/train/metrics_file.h"

#include <algorithm>
#include <fstream>

#include "brume/files/atomic_file.h"
#include "brume/files/json.h"

namespace brume {
namespace fs = std::filesystem;

std::vector<MetricsLine> read_metrics(const fs::path& file) {
  std::vector<MetricsLine> all;
  std::ifstream in(file);
  for (std::string text; std::getline(in, text);) {
    const nlohmann::json json = json_or_discarded(text);
    const auto step = json.is_object() ? json.find("step") : json.end();
    if (!json.is_object() || step == json.end() || !step->is_number_integer()) continue;
    MetricsLine line{step->get<int64_t>(), !json.contains("grad_norm"), {}, text};
    for (const auto& [name, value] : json.items())
      if (value.is_number() && name != "step") line.figures.emplace_back(name, value.get<double>());
    all.push_back(std::move(line));
  }
  return all;
}

bool has_test(const fs::path& file, int64_t step) {
  const std::vector<MetricsLine> lines = read_metrics(file);
  return std::any_of(lines.begin(), lines.end(), [&](const MetricsLine& line) { return line.test && line.step == step; });
}

void trim_metrics(const fs::path& file, int64_t step) {
  if (!fs::exists(file)) return;
  std::string kept;
  for (const MetricsLine& line : read_metrics(file))
    if (line.step <= step) kept += line.text + "\n";
  write_file(file.string(), kept);
}

}  // namespace brume
