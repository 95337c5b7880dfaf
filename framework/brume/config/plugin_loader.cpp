#include "brume/config/plugin_loader.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdlib>

#include "brume/config/foreign.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Returns "12" of "12.2.0": "12.4.1" is the same compiler as far as the ABI goes.
std::string_view major_version(std::string_view v) { return v.substr(0, v.find('.')); }

void check_abi(const PluginAbi& abi, const std::string& file) {
  const auto refuse = [&](std::string_view what, const auto& theirs, const auto& ours) {
    throw ConfigError(fmt::format("{}: built for {} {}, this brume has {}; rebuild the plugin", file, what, theirs, ours));
  };
  if (abi.magic != plugin_magic) throw ConfigError(fmt::format("{}: not a brume plugin (its record begins with {:#x})", file, abi.magic));
  if (abi.api != plugin_api || abi.size != sizeof(PluginAbi)) refuse("plugin API", abi.api, plugin_api);
  if (std::string_view(abi.torch) != TORCH_VERSION) refuse("LibTorch", abi.torch, TORCH_VERSION);
  if (abi.cxx11_abi != _GLIBCXX_USE_CXX11_ABI) refuse("C++11 ABI", abi.cxx11_abi, _GLIBCXX_USE_CXX11_ABI);
  if (major_version(abi.compiler) != major_version(__VERSION__)) refuse("compiler", abi.compiler, __VERSION__);
}

}  // namespace

fs::path load_plugin(Registry& registry, const fs::path& library) {
  const std::string given = library.string();
  std::error_code error;
  fs::path file = fs::canonical(library, error);
  if (error || !fs::is_regular_file(file)) throw ConfigError(fmt::format("{}: no such plugin library", given));
  const std::vector<std::string> loaded = registry.libraries();
  if (std::find(loaded.begin(), loaded.end(), file.string()) != loaded.end()) return file;
  const std::optional<PluginAbi> abi = read_plugin_abi(library);
  if (!abi) throw ConfigError(fmt::format("{}: not a brume plugin (it has no BRUME_PLUGIN)", given));
  check_abi(*abi, given);
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw ConfigError(fmt::format("{}: cannot be loaded: {}", given, dlerror()));
  const auto add = reinterpret_cast<void (*)(Registry&)>(dlsym(handle, "brume_plugin_register"));
  if (!add) throw ConfigError(fmt::format("{}: not a brume plugin (it registers nothing)", given));
  Registry with = registry;  // all of the library's plugins, or none
  with.set_origin(file.string());
  try {
    add(with);
  } catch (...) {
    rethrow_as(fmt::format("plugin library {}", given), "its registration");
  }
  with.set_origin("built-in");
  check_options(with, file.string());
  remember_library(file.string());
  registry = std::move(with);
  return file;
}

std::vector<fs::path> plugin_path_libraries() {
  std::vector<fs::path> libraries;
  const char* folders = std::getenv("BRUME_PLUGIN_PATH");
  if (!folders) return libraries;
  const std::string_view text = folders;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(':', start), text.size());
    const fs::path folder = text.substr(start, end - start);
    start = end + 1;
    if (folder.empty()) continue;  // and not the current directory, as in PATH
    if (!fs::is_directory(folder)) throw ConfigError(fmt::format("BRUME_PLUGIN_PATH: no folder '{}'", folder.string()));
    for (const auto& entry : fs::directory_iterator(folder))
      if (entry.path().extension() == ".so") libraries.push_back(entry.path());
  }
  std::sort(libraries.begin(), libraries.end());
  return libraries;
}

std::vector<Problem> missing_plugins(const Registry& registry, const std::string& file, const std::vector<std::string>& libraries) {
  const std::vector<std::string> loaded = registry.libraries();
  std::vector<Problem> problems;
  for (const std::string& library : libraries) {
    const auto same = [&](const std::string& l) { return fs::path(l).filename() == fs::path(library).filename(); };
    if (std::any_of(loaded.begin(), loaded.end(), same)) continue;
    problems.push_back({{},
                        "",
                        fmt::format("{}: was made with the plugin library {}; load it as a plugin: {}", file,
                                    fs::path(library).filename().string(), library)});
  }
  return problems;
}

}  // namespace brume
