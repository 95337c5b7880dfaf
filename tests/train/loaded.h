#pragma once
// A configuration as a training takes it.
#include <string>
#include <vector>

#include "brume/train/options.h"
#include "support/registry.h"

namespace brume::test {

struct Loaded {
  Config config;
  Value resolved;
};

/// Returns a configuration of these lines of YAML and settings, as `--set` takes them.
inline Loaded loaded(const char* yaml, const std::vector<std::string>& settings) {
  static Registry registry = builtins();
  Value root = parse_yaml(yaml, "tiny.yaml");
  for (const std::string& s : settings) apply_override(root, s, "--set");
  Loaded l;
  l.config = read_configuration(registry, root, &l.resolved);
  return l;
}

}  // namespace brume::test
