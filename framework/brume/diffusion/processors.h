#pragma once
// The number of threads that a process can run at once.
#include <cstdint>
#include <filesystem>

namespace brume {

/// Returns the number of logical processors for computing, at least 1. It is the smallest of:
/// - the processors that this process may run on (sched_getaffinity);
/// - of a hybrid processor, the performance cores alone if the process may run on some: work is shared in equal parts, and a part on an
///   efficiency core finishes last (/sys/devices/cpu_core/cpus);
/// - the CPU quota of its cgroup and of all cgroups above, rounded up (cgroup v2: cpu.max; v1: cpu.cfs_quota_us).
/// `root`: the directory that has proc/ and sys/. What is missing or unreadable there limits nothing.
int64_t usable_processors(const std::filesystem::path& root = "/");

}  // namespace brume
