#include "brume/config/counted.h"

#include <gtest/gtest.h>

#include <cstdint>

using brume::counted;

TEST(Counted, TakesTheSingularForOneAlone) {
  EXPECT_EQ(counted(1, "image"), "1 image");
  EXPECT_EQ(counted(0, "image"), "0 images");
  EXPECT_EQ(counted(uint64_t(21), "image"), "21 images");
  EXPECT_EQ(counted(int64_t(-1), "row"), "-1 rows");
}

TEST(Counted, KnowsThePluralsOfEnglish) {
  EXPECT_EQ(counted(2, "class"), "2 classes");
  EXPECT_EQ(counted(2, "process"), "2 processes");
  EXPECT_EQ(counted(2, "patch"), "2 patches");
  EXPECT_EQ(counted(2, "entry"), "2 entries");
  EXPECT_EQ(counted(1, "entry"), "1 entry");
}
