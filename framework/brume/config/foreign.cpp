#include "brume/config/foreign.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>

#include "brume/config/errors.h"
#include "brume/config/out_of_memory.h"

namespace brume {
namespace {

/// The loaded plugin libraries, and the names of their plugins by vtable: libraries are never unloaded.
struct Known {
  std::mutex guard;
  std::set<std::string> libraries;
  std::map<const void*, std::string> plugins;
};
Known& known() {
  static Known all;
  return all;
}

/// Returns the vtable of an object, which the Itanium C++ ABI keeps in its first word.
const void* vtable_of(const void* object) {
  const void* vtable = nullptr;
  std::memcpy(&vtable, object, sizeof(vtable));
  return vtable;
}

std::string name_of_library(std::string_view library) { return fmt::format("code of the plugin library {}", library); }

}  // namespace

void remember_library(const std::string& library) {
  const std::lock_guard hold(known().guard);
  known().libraries.insert(library);
}

std::string plugin_name(const void* object) {
  const std::lock_guard hold(known().guard);
  if (known().libraries.empty() || !object) return "";
  const void* vtable = vtable_of(object);
  if (const auto it = known().plugins.find(vtable); it != known().plugins.end()) return it->second;
  Dl_info info{};
  if (dladdr(vtable, &info) == 0 || !info.dli_fname || !known().libraries.contains(info.dli_fname)) return "";
  return name_of_library(info.dli_fname);
}

std::string name_of_plugin(std::string_view kind, std::string_view type, std::string_view library) {
  return fmt::format("{} '{}' (plugin library {})", kind, type, library);
}

std::string brief(const std::exception& e) {
  const std::string text = e.what();
  const std::string whole = text.substr(0, text.find("\nException raised from "));  // c10::Error
  return whole.empty() ? "an exception without a text" : whole;
}

void blame(const void* object, const std::string& mistake) {
  const std::string name = plugin_name(object);
  if (name.empty()) throw std::logic_error(mistake);
  throw ConfigError(fmt::format("{}: {}", name, mistake));
}

void rethrow_as(const std::string& plugin, std::string_view function) {
  if (plugin.empty()) throw;
  try {
    throw;
  } catch (const ConfigError&) {
    throw;
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception& e) {
    if (out_of_memory(e)) throw;
    throw ConfigError(fmt::format("{}: {} threw: {}", plugin, function, brief(e)));
  } catch (...) {
    throw ConfigError(fmt::format("{}: {} threw something that is not a std::exception", plugin, function));
  }
}

void rethrow_named(const void* object, std::string_view function) { rethrow_as(plugin_name(object), function); }

void name_in_errors(Recipe& recipe, std::string_view kind, const std::string& type, const std::string& library) {
  const std::string name = name_of_plugin(kind, type, library);
  recipe.check = [name, check = recipe.check](const void* context) {
    try {
      check(context);
    } catch (...) {
      rethrow_as(name, "check()");
    }
  };
  recipe.make = [name, library, make = recipe.make](const void* context) {
    std::shared_ptr<void> object;
    try {
      object = make(context);
    } catch (...) {
      rethrow_as(name, "its constructor");
    }
    const std::lock_guard hold(known().guard);
    // A class that is registered twice has one vtable: errors name its library then.
    const auto [at, fresh] = known().plugins.emplace(vtable_of(object.get()), name);
    if (!fresh && at->second != name) at->second = name_of_library(library);
    return object;
  };
}

}  // namespace brume
