#include "brume/files/hub_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "brume/config/errors.h"

namespace brume {
namespace {
namespace fs = std::filesystem;

/// Returns true for OWNER/NAME; a file that was misspelt has an extension of its own, or lies in a folder that exists.
bool is_hub_name(const std::string& path) {
  const size_t slash = path.find('/');
  if (slash == std::string::npos || slash == 0 || slash + 1 == path.size() || path.find('/', slash + 1) != std::string::npos) return false;
  const auto allowed = [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '/'; };
  if (!std::all_of(path.begin(), path.end(), allowed) || path[0] == '.' || path[0] == '-') return false;
  for (const char* ending : {".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".yaml", ".yml", ".png", ".npz"})
    if (path.ends_with(ending)) return false;
  std::error_code error;
  return !fs::exists(path.substr(0, slash), error);
}

fs::path cache() {
  const auto variable = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (const fs::path hub = variable("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const fs::path home = variable("HF_HOME"); !home.empty()) return home / "hub";
  if (const fs::path caches = variable("XDG_CACHE_HOME"); !caches.empty()) return caches / "huggingface/hub";
  return variable("HOME") / ".cache/huggingface/hub";
}

/// Returns the snapshot of the branch main, or else the only one; "" if there are none or several.
fs::path snapshot(const fs::path& model) {
  std::error_code error;
  std::string commit;
  if (std::ifstream in(model / "refs/main"); in >> commit && fs::is_directory(model / "snapshots" / commit, error))
    return model / "snapshots" / commit;
  std::vector<fs::path> all;
  for (fs::directory_iterator entry(model / "snapshots", error); !error && entry != fs::directory_iterator(); entry.increment(error))
    all.push_back(entry->path());
  return all.size() == 1 ? all[0] : fs::path();
}

}  // namespace

std::string from_hub(const std::string& path) {
  std::error_code error;
  if (fs::exists(path, error) || !is_hub_name(path)) return path;
  std::string folder = "models--" + path;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path found = snapshot(cache() / folder);
  if (found.empty())
    throw ConfigError(
        fmt::format("{0}: is no file here, and no model in '{1}'; `hf download {0}` fetches it from the hub", path, cache().string()));
  if (fs::exists(found / "model_index.json", error) || fs::exists(found / "config.json", error)) return found.string();
  std::vector<fs::path> weights;
  for (fs::directory_iterator entry(found, error); !error && entry != fs::directory_iterator(); entry.increment(error))
    if (const std::string ending = entry->path().extension().string(); ending == ".safetensors" || ending == ".ckpt")
      weights.push_back(entry->path());
  return weights.size() == 1 ? weights[0].string() : found.string();
}

}  // namespace brume
