// The number of threads, in trees of files such as Linux has them: quotas of cgroups of both versions, hybrid processors.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "brume/core/memory_limit.h"
#include "brume/core/processors.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/compute.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class Processors : public testing::Test {
 protected:
  /// Writes a file of the tree.
  void write(const std::string& name, const std::string& content) {
    const std::filesystem::path file = root_.path() / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << content;
  }
  int64_t usable() const { return usable_processors(root_.path()); }

  TempFolder root_;
  const int64_t all_ = usable_processors(root_.path());  ///< of an empty tree, which limits nothing
};

TEST_F(Processors, AreThoseOfTheProcessWithoutLimits) {
  EXPECT_GE(all_, 1);
  write("proc/self/cgroup", "0::/user/app\n");
  write("sys/fs/cgroup/user/app/cpu.max", "max 100000\n");
  EXPECT_EQ(usable(), all_);
}

TEST_F(Processors, AQuotaOfHalfACoreIsOneThread) {
  write("proc/self/cgroup", "0::/user/app\n");
  write("sys/fs/cgroup/user/app/cpu.max", "50000 100000\n");
  EXPECT_EQ(usable(), 1);
}

TEST_F(Processors, AQuotaIsRoundedUp) {
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_EQ(usable(), std::min<int64_t>(2, all_));
  write("sys/fs/cgroup/cpu.max", "6400000 100000\n");
  EXPECT_EQ(usable(), all_) << "a quota of more than there are";
}

TEST_F(Processors, AQuotaOfAGroupAboveHolds) {
  write("proc/self/cgroup", "0::/user/app\n");
  write("sys/fs/cgroup/user/cpu.max", "100000 100000\n");
  write("sys/fs/cgroup/user/app/cpu.max", "400000 100000\n");
  EXPECT_EQ(usable(), 1);
}

TEST_F(Processors, AQuotaOfTheFirstVersionHolds) {
  write("proc/self/cgroup", "7:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n");
  write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n");
  write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(usable(), all_);
  write("sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "80000\n");
  EXPECT_EQ(usable(), 1);
}

TEST_F(Processors, MemoryIsThatOfTheSmallestGroup) {
  EXPECT_EQ(group_memory(root_.path()), 0);
  write("proc/self/cgroup", "7:memory:/docker/x\n0::/user/app\n");
  write("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/user/app/memory.max", "max\n");
  EXPECT_EQ(group_memory(root_.path()), 0) << "numbers that stand for no limit";
  write("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "3000000000\n");
  EXPECT_EQ(group_memory(root_.path()), 3000000000) << "of the group above";
  write("sys/fs/cgroup/user/memory.max", "2000000000\n");
  EXPECT_EQ(group_memory(root_.path()), 2000000000);
}

TEST_F(Processors, FreeMemoryIsTheLeastOfTheSystemsAndTheGroups) {
  write("proc/meminfo", "MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\nBuffers: 1 kB\n");
  EXPECT_EQ(free_memory(root_.path()), 4000 * 1024);
  write("proc/self/cgroup", "0::/user/app\n");
  write("sys/fs/cgroup/user/app/memory.max", "3000000\n");
  write("sys/fs/cgroup/user/app/memory.current", "1000000\n");
  EXPECT_EQ(free_memory(root_.path()), 2000000);
  write("sys/fs/cgroup/user/memory.max", "3500000\n");
  write("sys/fs/cgroup/user/memory.current", "3600000\n");
  EXPECT_EQ(free_memory(root_.path()), 0) << "of the group above, which has more than it may";
}

TEST_F(Processors, AreDividedAmongTheProcessesOfAMachine) {
  const int64_t alone = threads_per_process(1, root_.path());
  EXPECT_EQ(alone, all_);
  EXPECT_EQ(threads_per_process(100000, root_.path()), 1);
  write("proc/self/cgroup", "0::/\n");
  write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  EXPECT_EQ(threads_per_process(1, root_.path()), std::min<int64_t>(2, all_));
  EXPECT_EQ(threads_per_process(2, root_.path()), 1) << "the quota is that of all";
}

TEST_F(Processors, OfAHybridProcessorTheFastOnesCount) {
  write("sys/devices/cpu_core/cpus", std::to_string(sched_getcpu()) + "\n");
  EXPECT_EQ(usable(), 1);
  write("sys/devices/cpu_core/cpus", "0-1,2,3-4095\n");
  EXPECT_EQ(usable(), all_);
}

TEST_F(Processors, OpenMpsLimitOfThreadsHolds) {
  const int threads = at::get_num_threads();
  const char* former = std::getenv("OMP_THREAD_LIMIT");
  const std::string kept = former ? former : "";
  setenv("OMP_THREAD_LIMIT", "1", 1);
  EXPECT_EQ(usable(), 1);
  std::vector<std::string> warnings;
  const WarningScope scope([&](const std::string& text) { warnings.push_back(text); });
  ComputeOptions options;
  resolve_compute(options);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_TRUE(warnings.empty()) << "nothing was asked for";
  options.threads = 3;
  resolve_compute(options);
  EXPECT_EQ(at::get_num_threads(), 1);
  EXPECT_EQ(warnings, std::vector<std::string>{"threads: 3 asked for, and OMP_THREAD_LIMIT allows 1: 1 compute"});
  for (const char* none : {"0", "many", "100000"}) {
    setenv("OMP_THREAD_LIMIT", none, 1);
    EXPECT_EQ(usable(), all_) << none;
  }
  former ? setenv("OMP_THREAD_LIMIT", kept.c_str(), 1) : unsetenv("OMP_THREAD_LIMIT");
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace brume::test
