#pragma once
// Files that are embedded in the program when it is built (cmake/BrumeEmbed.cmake).
#include <functional>
#include <map>
#include <string>

namespace brume::tools {

using Embedded = std::map<std::string, std::string, std::less<>>;

/// Returns the templates of `brume new`, tools/templates/*.in, by name: "sampler.cpp", "test.yaml", …
const Embedded& templates();

/// Returns what `brume bench --arch` measures, tools/bench/architectures/*.yaml, by name: "sd15", …
const Embedded& architectures();

/// Returns the page of `brume serve`, tools/studio/*, by the names of its files: "index.html", "main.js", …
const Embedded& studio();

/// Returns the experiments that the studio offers as a beginning, configs/experiments/*.yaml, by name: "quickstart", …
const Embedded& experiments();

}  // namespace brume::tools
