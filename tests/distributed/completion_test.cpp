// Waiting for an operation by slices: an operation that completes right after its slice ended has not failed.
#include "brume/distributed/completion.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

namespace brume::test {
namespace {

using std::chrono::milliseconds;

/// Behaves as c10d::Work: wait() throws an error if the slice ends first, and one if the operation failed.
struct Operation {
  int completes_after = 0;   ///< slices
  std::string failure = {};  ///< "" = none
  int waits = 0;

  bool isCompleted() const { return waits >= completes_after; }
  void wait(milliseconds) {
    const bool complete = isCompleted();
    ++waits;
    if (!complete) throw std::runtime_error("Operation timed out!");
    if (!failure.empty()) throw std::runtime_error(failure);
  }
};

std::string error_of_wait(Operation& operation) {
  try {
    completes_within(operation, milliseconds(1));
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

TEST(Completion, IsNoFailureRightAfterTheSliceEnds) {
  Operation operation{.completes_after = 1};  // incomplete when the first slice ends, complete when asked
  EXPECT_TRUE(completes_within(operation, milliseconds(1)));
  EXPECT_EQ(operation.waits, 2);
}

TEST(Completion, IsFalseWhileTheOperationGoesOn) {
  Operation operation{.completes_after = 3};
  EXPECT_FALSE(completes_within(operation, milliseconds(1)));
  EXPECT_FALSE(completes_within(operation, milliseconds(1)));
  EXPECT_TRUE(completes_within(operation, milliseconds(1)));
  EXPECT_TRUE(completes_within(operation, milliseconds(1)));
}

TEST(Completion, ThrowsTheErrorOfAFailureWheneverItComes) {
  Operation before{.failure = "Connection closed by peer"}, right_after{.completes_after = 1, .failure = "Connection closed by peer"};
  EXPECT_EQ(error_of_wait(before), "Connection closed by peer");
  EXPECT_EQ(error_of_wait(right_after), "Connection closed by peer");
}

}  // namespace
}  // namespace brume::test
