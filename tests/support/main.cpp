// Every test program starts like the program itself.
#include <gtest/gtest.h>

#include "brume/diffusion/compute.h"

int main(int argc, char** argv) {
  brume::prepare_process();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
