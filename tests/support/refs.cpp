#include "support/refs.h"

#include <ATen/ops/tensor.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

namespace brume::test {

std::filesystem::path ref_path(const std::string& name) {
  const char* shared = std::getenv("BRUME_SHARED");
  const std::filesystem::path root =
      shared ? std::filesystem::path(shared) : std::filesystem::path(BRUME_SOURCE_DIR).parent_path() / "shared";
  return root / "refs" / name;
}

bool has_ref(const std::string& name) { return std::filesystem::exists(ref_path(name)); }

const nlohmann::json& ref_json(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, nlohmann::json> files;
  const std::lock_guard lock(mutex);
  const auto [it, fresh] = files.try_emplace(name);
  if (fresh) it->second = nlohmann::json::parse(std::ifstream(ref_path(name)));
  return it->second;
}

at::Tensor tensor_of(const nlohmann::json& values, at::IntArrayRef shape, at::ScalarType dtype) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble).view(shape).to(dtype);
}

}  // namespace brume::test
