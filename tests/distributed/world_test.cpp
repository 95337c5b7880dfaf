// Collective operations, and what the others learn of a process that ends before its time.
#include "brume/distributed/world.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "support/registry.h"
#include "world_support.h"

namespace brume::test {
namespace {

class Worlds : public testing::Test {
 protected:
  void SetUp() override {
    if (world_backend().empty()) GTEST_SKIP() << "this build has no gloo";
  }
};

TEST_F(Worlds, SumTakeTheLargestAndBroadcast) {
  const auto errors = in_world(3, [](const std::shared_ptr<brume::World>& world) {
    const double rank = double(world->rank());
    const Tensor sum = at::full({5}, rank + 1), largest = at::full({2}, rank), from = at::full({4}, rank).to(at::kBFloat16);
    world->all_reduce(sum);
    world->all_reduce(largest, brume::World::Reduction::max);
    world->broadcast(from, 2);
    if (!sum.equal(at::full({5}, 6.0))) throw std::runtime_error("sum");
    if (!largest.equal(at::full({2}, 2.0))) throw std::runtime_error("largest");
    if (!from.equal(at::full({4}, 2.0).to(at::kBFloat16))) throw std::runtime_error("broadcast");
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST_F(Worlds, GatherRowsAndTextsOfAnyLength) {
  const auto errors = in_world(3, [](const std::shared_ptr<brume::World>& world) {
    const Tensor rows = world->all_gather_rows(at::arange(world->rank() * 2).view({world->rank(), 2}));  // 0, 1 and 2 rows
    if (rows.size(0) != 3 || rows[0][1].item<int64_t>() != 1 || rows[2][0].item<int64_t>() != 2) throw std::runtime_error("rows");
    const std::vector<std::string> texts = world->all_gather(std::string(size_t(world->rank()), 'x'));
    if (texts != std::vector<std::string>{"", "x", "xx"}) throw std::runtime_error("texts");
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
}

TEST_F(Worlds, NameTheProcessThatLeft) {
  const auto errors = in_world(3, [](const std::shared_ptr<brume::World>& world) {
    world->barrier();
    if (world->rank() == 1) throw std::runtime_error("the disk is full");
    world->barrier();
  });
  EXPECT_EQ(errors[1], "the disk is full");
  for (const size_t r : {0, 2}) EXPECT_EQ(errors[r], "rank 1 ended: the disk is full");
}

TEST_F(Worlds, NameTheProcessThatTakesNoPart) {
  const TempFolder folder;
  std::vector<std::thread> threads;
  std::string error;
  for (int64_t r = 0; r < 2; ++r)
    threads.emplace_back([&, r] {
      const auto world = join_world({r, 2, r, 2, "file://" + folder.file("store")}, std::chrono::seconds(60), std::chrono::seconds(2));
      if (r == 1) return std::this_thread::sleep_for(std::chrono::seconds(4));
      try {
        world->barrier();
      } catch (const WorldError& e) {
        error = e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(error, "rank 1 took no part in a step for 2 s (train.timeout)");
}

TEST_F(Worlds, RefuseWhatCannotBeJoined) {
  const auto join = [](const WorldPlace& place) { return error_of([&] { join_world(place, std::chrono::seconds(1)); }); };
  EXPECT_NE(join({0, 2, 0, 2, "udp://x:1"}).find("'udp://x:1' is not like tcp://HOST:PORT or file:///PATH"), std::string::npos);
  EXPECT_NE(join({0, 2, 0, 2, "tcp://x"}).find("'tcp://x' is not like tcp://HOST:PORT"), std::string::npos);
  EXPECT_NE(join({1, 2, 1, 2, "tcp://127.0.0.1:1"}).find("nobody answers at tcp://127.0.0.1:1 within 1 s"), std::string::npos);
  const TempFolder folder;
  const std::string store = "file://" + folder.file("store");
  EXPECT_NE(join({0, 3, 0, 3, store}).find("ranks 1, 2 did not come to " + store + " within 1 s; 1 of 3 came"), std::string::npos);
  EXPECT_NE(join({0, 3, 0, 3, store}).find("is of an earlier job; remove the file"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
