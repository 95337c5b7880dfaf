#pragma once
// Expects the laws that `brume conform` measures.
#include <gtest/gtest.h>

#include <vector>

#include "brume/conform/conform.h"

namespace brume::test {

inline void expect_to_hold(const std::vector<Finding>& findings) {
  EXPECT_FALSE(findings.empty());
  for (const Finding& f : findings) EXPECT_TRUE(f.holds) << f.law.name << ": " << f.measured << ", wanted: " << f.wanted;
}

}  // namespace brume::test
