#include "brume/diffusion/compute.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "brume/config/fields.h"
#include "brume/core/memory_limit.h"
#include "brume/core/processors.h"
#include "brume/core/warnings.h"

namespace brume {

void ComputeOptions::declare(Fields& f) {
  f.choice("precision", precision,
           "precision of the network: auto = that of an int8 file, else bf16 if the processor has it, else fp32; int8 is for evaluation",
           {{"auto", Precision::automatic}, {"fp32", Precision::fp32}, {"bf16", Precision::bf16}, {"int8", Precision::int8}});
  f.field("device", device, "cpu, cuda or cuda:1");
  f.field("threads", threads, "processor threads; 0 = all cores", Range{.lo = 0, .hi = 4096});
}

bool has_fast_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;  // every processor with AMX-BF16 has it
#else
  return false;
#endif
}

namespace {

/// Returns the number of threads to compute with: what is asked for, as far as OMP_THREAD_LIMIT allows. Warns if it allows fewer.
int64_t threads_of(const ComputeOptions& o, int64_t processors) {
  const int64_t threads = o.threads > 0 ? o.threads : processors, limit = thread_limit();
  if (limit == 0 || threads <= limit) return threads;
  warn(fmt::format("threads: {} asked for, and OMP_THREAD_LIMIT allows {}: {} compute", threads, limit, limit));
  return limit;
}

}  // namespace

Compute resolve_compute(const ComputeOptions& o) {
  const int64_t processors = usable_processors(), threads = threads_of(o, processors);
  check_room_for_threads(threads + std::max(threads, processors));  // OpenMP's, and those of LibTorch's own pool
  at::set_num_threads(int(threads));                                // starts the latter
  if (o.device == "cpu") keep_within_group_memory(threads - 1);
  Compute c;
  try {
    c.device = at::Device(o.device);
  } catch (const std::exception&) {
    throw ConfigError(fmt::format("device: '{}' is not a device; cpu, cuda or cuda:0 are", o.device));
  }
  if (c.device.is_cuda() && !at::hasCUDA())
    throw ConfigError(fmt::format("device: '{}' asked for, and this LibTorch has no CUDA", o.device));
  if (!c.device.is_cpu() && !c.device.is_cuda())
    throw ConfigError(fmt::format("device: '{}' is not supported; cpu and cuda are", o.device));
  const bool fast = c.device.is_cuda() || has_fast_bf16();
  if (o.precision == Precision::bf16 || (o.precision == Precision::automatic && fast)) c.dtype = at::kBFloat16;
  c.int8 = o.precision == Precision::int8;
  if (c.int8 && !c.device.is_cpu())
    throw ConfigError(
        fmt::format("precision: int8 is computed on the CPU only, and device is '{}'; fp32 and bf16 are computed there", o.device));
  return c;
}

void prepare_process() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq"))
    setenv("ATEN_CPU_CAPABILITY", "avx512", 0);
#endif
  // Big tensors come and go every step: keep their pages instead of returning them to the system each time.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  const bool limited = !memory_limit_text().empty();  // each thread that allocates would reserve as much, and what is freed at the end
  mallopt(M_TOP_PAD, (limited ? 1 : 64) << 20);
}

std::string blas_warning() {
  void* sgemm = dlsym(RTLD_DEFAULT, "sgemm_");
  Dl_info info;
  if (!sgemm || !dladdr(sgemm, &info) || !info.dli_fname) return "";
  std::error_code error;
  const std::string file = std::filesystem::canonical(info.dli_fname, error).string();
  if (error || file.find("/blas/libblas.so") == std::string::npos) return "";
  return fmt::format("LibTorch runs on the slow reference BLAS ({}); install libopenblas0-openmp for products some 50 times faster", file);
}

}  // namespace brume
