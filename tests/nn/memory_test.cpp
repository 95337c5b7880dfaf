// Memory that is kept for what comes next, and pages of files that are let go.
#include "brume/nn/ops/memory_pool.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "brume/core/file_pages.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/isa.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

using at::Tensor;
using nn::MemoryPoolScope;

struct Step {
  nn::Builder build{1};
  nn::Conv2d a = build.conv2d("a", 8, 64, 3), b = build.conv2d("b", 64, 8, 3);
  Tensor x = at::randn({2, 8, 64, 64}, at::detail::createCPUGenerator(1), at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
  Tensor operator()() const {
    const at::NoGradGuard no_grad;
    return b(a(x) * 2) + x;
  }
};

TEST(MemoryPoolScope, AnEvaluationThatIsRepeatedTakesNothing) {
  const Step step;
  const Tensor wanted = step();
  const MemoryPoolScope keep;
  step();
  const size_t taken = MemoryPoolScope::account().taken;
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(step().equal(wanted));
  EXPECT_EQ(MemoryPoolScope::account().taken, taken);
  EXPECT_GT(MemoryPoolScope::account().free, 0u);
}

TEST(MemoryPoolScope, GivesBackWhatIsLeftAtTheEnd) {
  Tensor outlives;
  {
    const MemoryPoolScope outer;
    {
      const MemoryPoolScope keep;
      outlives = at::ones({1 << 20});
      at::ones({1 << 20});
    }
    EXPECT_GT(MemoryPoolScope::account().free, 0u) << "the outer one still lives";
  }
  EXPECT_EQ(MemoryPoolScope::account().free, 0u);
  EXPECT_EQ(outlives.sum().item<float>(), float(1 << 20));
  outlives.reset();
  EXPECT_EQ(MemoryPoolScope::account().free, 0u);
}

TEST(MemoryPoolScope, IsNotForTheReferencePath) {
  const nn::Isa before = nn::isa();
  nn::set_isa(nn::Isa::reference);
  {
    const MemoryPoolScope keep;
    at::ones({1 << 20});
    EXPECT_EQ(MemoryPoolScope::account().free, 0u);
  }
  nn::set_isa(before);
}

TEST(MemoryPoolScope, ServesManyThreads) {
  const MemoryPoolScope keep;
  std::vector<std::thread> threads;
  std::vector<double> sums(4);
  for (size_t t = 0; t < sums.size(); ++t)
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < 200; ++i) {
        const Tensor x = at::full({20000 + 977 * (i % 13)}, double(t)), y = x + 1;
        sums[t] += (y - x).sum().item<double>() / double(x.numel());
      }
    });
  for (std::thread& t : threads) t.join();
  for (const double sum : sums) EXPECT_EQ(sum, 200);
}

TEST(LastingMemory, IsAllThere) {
  for (const size_t bytes : {size_t(1), size_t(5000), (size_t(2) << 20) - 1, (size_t(6) << 20) + 1}) {
    const Tensor memory = nn::lasting_memory(bytes);
    EXPECT_EQ(memory.nbytes(), bytes);
    EXPECT_EQ(memory.fill_(7).sum().item<int64_t>(), int64_t(7 * bytes));
  }
}

class LetGo : public testing::Test {
 protected:
  static constexpr size_t pages = 1500;
  const size_t page_ = size_t(sysconf(_SC_PAGESIZE)), size_ = pages * page_;
  size_t resident(void* data) const {
    // Of this process, whatever of the file is in the system's cache.
    std::vector<uint64_t> entries(pages);
    const int map = open("/proc/self/pagemap", O_RDONLY);
    EXPECT_EQ(pread(map, entries.data(), pages * 8, off_t(reinterpret_cast<uintptr_t>(data) / page_ * 8)), ssize_t(pages * 8));
    close(map);
    size_t count = 0;
    for (const uint64_t entry : entries) count += entry >> 63;
    return count;
  }
};

TEST_F(LetGo, LosesNothingThatWasWritten) {
  const TempFolder folder;
  const std::string path = folder.file("numbers");
  const int file = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  const std::vector<unsigned char> content(size_, 3);
  ASSERT_EQ(write(file, content.data(), size_), ssize_t(size_));
  auto* data = static_cast<unsigned char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
  close(file);
  ASSERT_NE(data, MAP_FAILED);
  data[700 * page_] = 9;
  size_t sum = 0;
  for (size_t i = 0; i < size_; i += page_) sum += data[i];
  ASSERT_EQ(sum, 3 * pages + 6);
  ASSERT_EQ(resident(data), pages);
  discard_file_pages(data + 1, size_ - 2);  // not the first and the last page, which are shared with others
  EXPECT_LE(resident(data), 3u);
  EXPECT_GE(resident(data), 1u) << "the page that was written to is nowhere else";
  sum = 0;
  for (size_t i = 0; i < size_; i += page_) sum += data[i];
  EXPECT_EQ(sum, 3 * pages + 6);
  munmap(data, size_);
}

TEST_F(LetGo, LeavesOtherMemoryAlone) {
  const Tensor x = at::ones({int64_t(size_)}, at::kByte);
  discard_file_pages(x.data_ptr(), x.nbytes());
  EXPECT_EQ(x.sum().item<int64_t>(), int64_t(size_));
}

}  // namespace
}  // namespace brume::test
