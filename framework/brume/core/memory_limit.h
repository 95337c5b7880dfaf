#pragma once
// Limits on the memory of this process: an allocation beyond them is to fail with an error, not to end or to stop the process.
#include <cstdint>
#include <filesystem>
#include <string>

namespace brume {

/// Returns the bytes that the control groups of this process may take (cgroup v2: memory.max; v1: memory.limit_in_bytes); 0 if they have no
/// limit. `root`: the directory that has proc/ and sys/.
int64_t group_memory(const std::filesystem::path& root = "/");

/// Returns the bytes that this process can take before the system, its control groups or its limits (ulimit -v, -d) refuse more.
/// `root`: the directory that has proc/ and sys/.
int64_t free_memory(const std::filesystem::path& root = "/");

/// Limits what this process can allocate (RLIMIT_DATA) to what its control groups may take, less a reserve for the code of libraries and
/// the kernel. Beyond the limit of a group, the system would end the process without a word. Reserved memory that nobody uses (stacks,
/// buffers of libraries) does not count. `threads`: how many OpenMP will start.
void keep_within_group_memory(int64_t threads);

/// Returns a text like " (ulimit -v allows 900 MiB)" of the limit that counts; "" without one.
std::string memory_limit_text();

/// Throws ConfigError naming the limit if so many threads cannot be started. LibTorch's thread pool waits without end for a thread that was
/// not made, and OpenMP ends the process.
void check_room_for_threads(int64_t count);

}  // namespace brume
