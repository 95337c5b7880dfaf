#pragma once
// The device and the precision that a model computes with.
#include <ATen/core/Tensor.h>

#include <string>

namespace brume {
class Fields;

enum class Precision { automatic, fp32, bf16, int8 };

struct ComputeOptions {
  Precision precision = Precision::automatic;
  std::string device = "cpu";
  int64_t threads = 0;
  void declare(Fields& f);
};

/// What the options come to on this machine.
struct Compute {
  at::ScalarType dtype = at::kFloat;  ///< of the network call; weights are trained in float32
  at::Device device = at::kCPU;
  bool int8 = false;  ///< the inner layers of a network multiply eight-bit integers; of evaluation alone
};

/// Returns true if the processor multiplies bfloat16 natively (AMX or AVX512-BF16).
bool has_fast_bf16();

/// Resolves the options, sets the number of threads, and throws ConfigError if the device is not there.
Compute resolve_compute(const ComputeOptions& options);

/// Prepares LibTorch; call it first in main(): LibTorch 1.13.1 picks AVX2 kernels although AVX512 is there, and one thread.
void prepare_process();

/// Returns a sentence naming the package to install if LibTorch runs on the slow reference BLAS; empty if it does not.
std::string blas_warning();

}  // namespace brume
