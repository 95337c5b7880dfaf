#pragma once
// How to make one configured plugin: its options are read and checked already, the object is not made yet.
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "brume/config/errors.h"

namespace brume {

/// Type-erased maker. `context` points to the `Context` of the plugin's interface, or is null for interfaces without one.
struct Recipe {
  std::string type;
  Place place;
  std::string path;
  std::function<std::shared_ptr<void>(const void* context)> make;
  std::function<void(const void* context)> check;
  bool weightless = false;  ///< the plugin's `T::weightless`: made from options alone, without weights and files
  bool neutral = false;     ///< the plugin's `T::neutral`: changes nothing
};

/// A plugin whose options are known and whose object is made when its `I::Context` is: networks (channels, classes),
/// data sets (the wanted image shape), optimizers (the weights).
template <class I>
class Deferred {
 public:
  Deferred() = default;
  explicit Deferred(Recipe recipe) : recipe_(std::move(recipe)) {}

  explicit operator bool() const { return static_cast<bool>(recipe_.make); }
  const std::string& type() const { return recipe_.type; }
  /// Returns true if the object is made from options alone, without weights and files.
  bool weightless() const { return recipe_.weightless; }
  /// Returns true if the object changes nothing: the identity, a loss of 0.
  bool neutral() const { return recipe_.neutral; }
  const Place& place() const { return recipe_.place; }
  const std::string& path() const { return recipe_.path; }

  /// Throws ConfigError for what is wrong with these options in this context, without making weights or reading data.
  void check(const typename I::Context& context) const {
    const auto run = [&] {
      recipe_.check(&context);
      return 0;
    };
    located(run);
  }
  std::shared_ptr<I> make(const typename I::Context& context) const {
    return located([&] {
      recipe_.check(&context);
      return std::static_pointer_cast<I>(recipe_.make(&context));
    });
  }

 private:
  template <class F>
  auto located(const F& run) const {
    if (!recipe_.make) throw std::logic_error(std::string("no ") + std::string(I::kind) + " was configured");
    try {
      return run();
    } catch (const ConfigError& e) {
      throw e.located(recipe_.place, recipe_.path);
    }
  }
  Recipe recipe_;
};

}  // namespace brume
