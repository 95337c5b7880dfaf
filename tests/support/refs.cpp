#include "support/refs.h"

#include <ATen/ops/tensor.h>

#include <cctype>
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

std::vector<RefCase> ref_cases(const std::string& name, const char* list, const std::function<bool(const nlohmann::json&)>& wanted) {
  std::vector<RefCase> found;
  for (const std::string& file : {name, "../cases/" + name}) {
    if (!has_ref(file)) continue;
    const nlohmann::json& all = ref_json(file)[list];
    for (size_t i = 0; i < all.size(); ++i)
      if (wanted(all[i])) found.push_back({file, i});
  }
  return found;
}

const nlohmann::json& ref_case(const RefCase& c, const char* list) { return ref_json(c.file)[list][c.index]; }

std::string ref_name(const RefCase& c, const std::string& id) {
  std::string name = (c.file.starts_with("..") ? "more_" : "") + id;
  for (char& ch : name)
    if (!std::isalnum(static_cast<unsigned char>(ch))) ch = '_';
  return name;
}

at::Tensor tensor_of(const nlohmann::json& values, at::IntArrayRef shape, at::ScalarType dtype) {
  return at::tensor(values.get<std::vector<double>>(), at::kDouble).view(shape).to(dtype);
}

}  // namespace brume::test
