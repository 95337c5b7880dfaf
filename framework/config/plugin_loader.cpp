#include "config/plugin_loader.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdlib>
#include <set>

namespace brume {
namespace {

/// "12.2.0" and "12.4.1" are one compiler as far as the ABI goes.
std::string major_version(std::string_view v) { return std::string(v.substr(0, v.find('.'))); }

void check_abi(const PluginAbi& abi, const std::string& file) {
  const auto refuse = [&](std::string_view what, const auto& theirs, const auto& ours) {
    throw ConfigError(fmt::format("{}: built for {} {}, this brume has {}; rebuild the plugin", file, what, theirs, ours));
  };
  if (abi.magic != plugin_magic) throw ConfigError(fmt::format("{}: not a brume plugin (its record begins with {:#x})", file, abi.magic));
  if (abi.api != plugin_api) refuse("plugin API", abi.api, plugin_api);
  if (std::string_view(abi.torch) != TORCH_VERSION) refuse("LibTorch", abi.torch, TORCH_VERSION);
  if (abi.cxx11_abi != _GLIBCXX_USE_CXX11_ABI) refuse("C++11 ABI", abi.cxx11_abi, _GLIBCXX_USE_CXX11_ABI);
  if (major_version(abi.compiler) != major_version(__VERSION__)) refuse("compiler", abi.compiler, __VERSION__);
}

}  // namespace

void load_plugin(Registry& registry, const std::filesystem::path& library) {
  static std::set<std::pair<const Registry*, std::string>> loaded;
  std::error_code error;
  const std::filesystem::path file = std::filesystem::canonical(library, error);
  if (error) throw ConfigError(fmt::format("{}: no such plugin library", library.string()));
  if (loaded.contains({&registry, file.string()})) return;
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw ConfigError(fmt::format("{}: cannot be loaded: {}", library.string(), dlerror()));
  const auto* abi = static_cast<const PluginAbi*>(dlsym(handle, "brume_plugin_abi"));
  if (!abi) throw ConfigError(fmt::format("{}: not a brume plugin (it has no BRUME_PLUGIN)", library.string()));
  check_abi(*abi, library.string());
  const auto add = reinterpret_cast<void (*)(Registry&)>(dlsym(handle, "brume_plugin_register"));
  if (!add) throw ConfigError(fmt::format("{}: not a brume plugin (it registers nothing)", library.string()));
  registry.set_origin(file.string());
  add(registry);
  registry.set_origin("built-in");
  loaded.emplace(&registry, file.string());
}

std::vector<std::filesystem::path> plugin_path_libraries() {
  std::vector<std::filesystem::path> libraries;
  const char* folders = std::getenv("BRUME_PLUGIN_PATH");
  if (!folders) return libraries;
  const std::string_view text = folders;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(':', start), text.size());
    const std::filesystem::path folder = text.substr(start, end - start);
    start = end + 1;
    if (folder.empty()) continue;
    if (!std::filesystem::is_directory(folder))
      throw ConfigError(fmt::format("BRUME_PLUGIN_PATH: no folder '{}'", folder.string()));
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".so") libraries.push_back(entry.path());
  }
  std::sort(libraries.begin(), libraries.end());
  return libraries;
}

}  // namespace brume
