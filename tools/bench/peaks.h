#pragma once
// brume bench --peak: what this processor computes and reads at most, by loops that do nothing else.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace brume::tools {

struct Peak {
  std::string name, unit;  ///< "float32", "GFLOP/s"
  std::string with;        ///< the instructions that reach it; empty if there are none
  double rate = 0;         ///< of all threads together; 2 operations per multiply-add
};

/// Returns the peaks of float32, bf16, int8 and of reading memory, with as many threads as networks are computed with: of each instruction
/// set up to the one in use (nn::isa), the best first. Takes half a second for each.
std::vector<Peak> measure_peaks();

/// Returns " 63% of the peak", the first of that name; an empty text if it is not among them or the rate is 0.
std::string share_of_peak(const std::vector<Peak>& peaks, const std::string& name, double rate);

/// Appends an object for each peak to an array.
void append_peaks(nlohmann::ordered_json& array, const std::vector<Peak>& peaks);

void print_peaks(const std::vector<Peak>& peaks);

}  // namespace brume::tools
