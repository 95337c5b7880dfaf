#pragma once
// Plugins: those built in, and shared libraries built out of tree against an installed brume.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/registry.h"

namespace brume {

/// What a plugin library was built with: plain data in a section of its own (".brume_abi"), read from the file before
/// anything of the library is loaded. The first three numbers never change their place.
struct PluginAbi {
  uint32_t magic;
  uint32_t size;  ///< of this record
  uint32_t api;
  uint32_t cxx11_abi;
  char torch[32];     ///< LibTorch's version
  char compiler[64];  ///< __VERSION__
  char name[64];
};

inline constexpr uint32_t plugin_magic = 0x42524d45;  // "BRME"
/// Raised with every change of an interface header that a plugin sees.
inline constexpr uint32_t plugin_api = 9;

constexpr PluginAbi make_plugin_abi(std::string_view torch, std::string_view compiler, uint32_t cxx11_abi, std::string_view name) {
  PluginAbi abi{plugin_magic, sizeof(PluginAbi), plugin_api, cxx11_abi, {}, {}, {}};
  const auto put = [](std::string_view text, auto& into) {
    for (size_t i = 0; i < text.size() && i + 1 < sizeof(into); ++i) into[i] = text[i];
  };
  put(torch, abi.torch);
  put(compiler, abi.compiler);
  put(name, abi.name);
  return abi;
}

/// Returns the record of a library, or nothing if it has none; a record of another layout comes with its numbers only. Throws
/// ConfigError if the file is not a shared library.
std::optional<PluginAbi> read_plugin_abi(const std::filesystem::path& library);

/// Adds every built-in plugin (generated from the files under plugins/).
void register_builtins(Registry& registry);

/// Loads a plugin library and registers what it holds. Throws ConfigError if it was built for another API, LibTorch, compiler or C++ ABI
/// (naming both sides), if it claims a name that is taken, if its registration throws, and if the options of a plugin cannot be read; then
/// nothing is registered. Libraries are never unloaded; one loaded before is left alone. Returns the library's full path.
std::filesystem::path load_plugin(Registry& registry, const std::filesystem::path& library);

/// Throws ConfigError with every plugin of `library` that declares two options of one name, an option called `type`, or a choice whose
/// default is not one of its words.
void check_options(const Registry& registry, const std::string& library);

/// Returns the libraries of the folders in the environment variable BRUME_PLUGIN_PATH (separated by ':').
std::vector<std::filesystem::path> plugin_path_libraries();

/// Returns what to tell the user who opens `file`, which was made with these libraries, about those that are not loaded. A library is
/// known again by its file name: it may have moved since.
std::vector<Problem> missing_plugins(const Registry& registry, const std::string& file, const std::vector<std::string>& libraries);

}  // namespace brume
