#pragma once
// Inception weights by the closed rule of shared/refs3 (README, section 1).
#include <cstdint>
#include <string>

namespace brume::test {

/// Value `index` of the sequence called `name`, in [-1, 1).
double rule_value(const std::string& name, uint64_t seed, uint64_t index);
/// Writes a safetensors file of weights for the extractor `inception`.
void write_inception(const std::string& path, uint64_t seed);

}  // namespace brume::test
