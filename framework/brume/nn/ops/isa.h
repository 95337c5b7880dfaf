#pragma once
// The instruction set used by brume's own CPU kernels, chosen at run time.
//
// The best set of this processor is taken unless the environment variable BRUME_ISA (reference, generic, avx2, avx512,
// avx512_bf16 or amx) names another one. Results of different sets agree to rounding, not bit for bit. `reference` is LibTorch's own
// operations on contiguous memory: what a network written with torch::nn modules computes, the baseline of `brume bench`.

#include <string>

namespace brume::nn {

/// Each has what those before it have.
enum class Isa { reference, generic, avx2, avx512, avx512_bf16, amx };

const char* isa_name(Isa isa);

/// Returns the name of one; anything else is a std::invalid_argument that names them.
Isa parse_isa(const std::string& name);

/// Returns true if this processor (and this build) can run it. `reference` and `generic` always can.
bool isa_supported(Isa isa);

/// Returns the set in use. The first call reads BRUME_ISA; throws ConfigError if that is unknown or more than the processor has.
Isa isa();

/// Overrides the choice, for tests and measurements. Throws std::invalid_argument if the processor lacks it.
void set_isa(Isa isa);

}  // namespace brume::nn
