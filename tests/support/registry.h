#pragma once
// What tests that run over the registry share: the built-in plugins, the least configuration each can be used with, readable
// names, and the text of an error.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/config/registry.h"
#include "brume/config/yaml.h"

namespace brume::test {

/// The registry with every built-in plugin.
const Registry& builtins();

/// One plugin as a test sees it.
struct Specimen {
  std::string kind, name;
  std::string yaml;   ///< "ddim", or "{type: ddim, eta: 1}"
  std::string label;  ///< for the name of the test: letters, digits and underscores
};
inline void PrintTo(const Specimen& s, std::ostream* out) { *out << s.kind << " " << s.yaml; }

/// Every plugin of every kind, with the least configuration it can be used with.
std::vector<Specimen> every_plugin();
/// Every plugin of a kind, in its least configuration, then these others ("{type: ddim, eta: 1}").
std::vector<Specimen> specimens(std::string_view kind, const std::vector<std::string>& others = {});

/// For INSTANTIATE_TEST_SUITE_P.
std::string readable(const testing::TestParamInfo<Specimen>& info);

/// A plugin's configuration with more keys ("lr: 0.1, warmup: 3") laid over it.
Value with(const std::string& yaml, const std::string& more);

template <class I>
std::shared_ptr<const I> make(const std::string& yaml) {
  return create<I>(builtins(), parse_yaml(yaml, "test.yaml"));
}
template <class I>
std::shared_ptr<I> make(const std::string& yaml, const typename I::Context& context, const std::string& more = "") {
  return create_deferred<I>(builtins(), with(yaml, more)).make(context);
}

/// What the ConfigError of `run` says.
template <class F>
std::string error_of(const F& run) {
  try {
    run();
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace brume::test
