#pragma once
// A law that every correct plugin of a kind keeps, and what its measurement found.
#include <exception>
#include <string>
#include <vector>

namespace brume {

struct Law {
  std::string name;      ///< unique within a kind
  std::string meaning;   ///< one sentence
  std::string source{};  ///< the paper that states it; empty = the interface's own header
};

/// One law, measured on one plugin.
struct Finding {
  Law law;
  std::string measured{};  ///< a figure, and the input at which it was found
  std::string wanted{};
  bool holds = true;
};

/// Calls measure(finding) and appends the finding. An exception breaks the law; its text becomes the measurement.
template <class F>
void check(std::vector<Finding>& findings, const Law& law, const F& measure) {
  Finding finding{law};
  try {
    measure(finding);
  } catch (const std::exception& e) {
    finding.measured = e.what();
    finding.holds = false;
  }
  findings.push_back(finding);
}

}  // namespace brume
