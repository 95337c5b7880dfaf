#pragma once
// What the code of plugin libraries does wrong is reported in the name of the plugin and of its library.
#include <exception>
#include <string>
#include <string_view>
#include <type_traits>

#include "brume/config/recipe.h"

namespace brume {

/// Returns "sampler 'wild' (plugin library /x/libwild.so)" for an object that a plugin of a library made, "code of the plugin library
/// /x/libwild.so" for other objects of a class of that library, and "" for the rest. `object`: the address of an interface with virtual
/// functions. The library is the one that holds the object's vtable.
std::string plugin_name(const void* object);

/// Returns the text of an error without the backtrace that LibTorch appends.
std::string brief(const std::exception& e);

/// Throws "NAME: mistake" as ConfigError if the object is a plugin library's, else as std::logic_error.
[[noreturn]] void blame(const void* object, const std::string& mistake);

/// Rethrows the exception that is handled: as ConfigError "NAME: FUNCTION threw: text" if the object is a plugin library's. A ConfigError,
/// an Interrupted and a lack of memory stay what they are.
[[noreturn]] void rethrow_named(const void* object, std::string_view function);

/// Calls a function of a plugin; what it throws is rethrown as above.
template <class T, class F>
auto calling(const T& plugin, std::string_view function, const F& run) {
  static_assert(std::is_polymorphic_v<T>);
  try {
    return run();
  } catch (...) {
    rethrow_named(&plugin, function);
  }
}

/// Declares that a plugin library is loaded from `library`.
void remember_library(const std::string& library);

/// Wraps the functions of a recipe of a plugin library: what they throw is reported in its name, and so is what the object does later.
void name_in_errors(Recipe& recipe, std::string_view kind, const std::string& type, const std::string& library);

/// Returns how an error calls a plugin: "sampler 'wild' (plugin library /x/libwild.so)".
std::string name_of_plugin(std::string_view kind, std::string_view type, std::string_view library);
/// Rethrows the exception that is handled as rethrow_named() does, in the name `plugin`.
[[noreturn]] void rethrow_as(const std::string& plugin, std::string_view function);

}  // namespace brume
