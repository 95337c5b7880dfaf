#pragma once
// The templates of `brume new`, tools/templates/*.in, embedded in the program when it is built.
#include <functional>
#include <map>
#include <string>

namespace brume::tools {

/// By name: "sampler.cpp", "test.yaml", …
const std::map<std::string, std::string, std::less<>>& templates();

}  // namespace brume::tools
