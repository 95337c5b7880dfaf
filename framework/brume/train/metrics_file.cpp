#include "brume/train/metrics_file.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "brume/files/atomic_file.h"

namespace brume {
namespace fs = std::filesystem;

bool has_test(const fs::path& file, int64_t step) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.value("step", int64_t(-1)) == step && !json.contains("grad_norm")) return true;
  }
  return false;
}

void trim_metrics(const fs::path& file, int64_t step) {
  std::ifstream in(file);
  if (!in) return;
  std::string kept, line;
  while (std::getline(in, line)) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_object() && json.value("step", int64_t(0)) <= step) kept += line + "\n";
  }
  write_file(file.string(), kept);
}

}  // namespace brume
