#pragma once
// The number of threads that a process can run at once.
#include <cstdint>
#include <filesystem>

namespace brume {

/// Returns the number in OMP_THREAD_LIMIT, which OpenMP holds a process to; 0 = no limit. oneDNN waits forever for threads above it, as
/// each of its regions waits for as many threads as it asked for.
int64_t thread_limit();

/// Returns the number of logical processors for computing, at least 1. It is the smallest of:
/// - the processors that this process may run on (sched_getaffinity);
/// - of a hybrid processor, the performance cores alone if the process may run on some: work is shared in equal parts, and a part on an
///   efficiency core finishes last (/sys/devices/cpu_core/cpus);
/// - thread_limit();
/// - the CPU quota of its cgroup and of all cgroups above, rounded up (cgroup v2: cpu.max; v1: cpu.cfs_quota_us).
/// `root`: the directory that has proc/ and sys/. What is missing or unreadable there limits nothing.
int64_t usable_processors(const std::filesystem::path& root = "/");

/// Returns the number of threads of one of `local_size` processes that share this machine: the smaller of usable_processors(), since a
/// launcher that binds each process to its processors has divided them already, and an equal part of the machine's processors within the
/// quota. LibTorch's own count and OMP_NUM_THREADS are not considered. `root`: as above.
int64_t threads_per_process(int64_t local_size, const std::filesystem::path& root = "/");

}  // namespace brume
