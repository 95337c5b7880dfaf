#pragma once
// A configuration value on one line, as `--set` takes it.
#include <string>

#include "brume/config/value.h"

namespace brume {

/// Returns YAML in flow style: "0.001", "[1, 2]", "{type: ddim, eta: 1}". It parses back to the same value.
std::string inline_yaml(const Value& value);

}  // namespace brume
