#pragma once
// Plugins: those built in, and shared libraries built out of tree against an installed brume.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/registry.h"

namespace brume {

/// What a plugin library was built with, as plain data: read before anything of the library runs.
struct PluginAbi {
  uint32_t magic;
  uint32_t api;
  const char* torch;     ///< LibTorch's version
  const char* compiler;  ///< __VERSION__
  uint32_t cxx11_abi;
  const char* name;
};

inline constexpr uint32_t plugin_magic = 0x42524d45;  // "BRME"
/// Raised with every change of an interface header that a plugin sees.
inline constexpr uint32_t plugin_api = 1;

/// Adds every built-in plugin (generated from the files under plugins/).
void register_builtins(Registry& registry);

/// Loads a plugin library and registers what it holds. Throws ConfigError saying both sides where it was built for another
/// API, LibTorch, compiler or C++ ABI. Libraries are never unloaded; one loaded before is left alone.
void load_plugin(Registry& registry, const std::filesystem::path& library);

/// The libraries of the folders in the environment variable BRUME_PLUGIN_PATH (separated by ':').
std::vector<std::filesystem::path> plugin_path_libraries();

}  // namespace brume
