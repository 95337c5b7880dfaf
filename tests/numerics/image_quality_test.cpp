// PSNR and SSIM: what they must be, and SSIM as the paper writes it, position by position.
#include "brume/numerics/image_quality.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include <cmath>

namespace brume::test {
namespace {

Tensor drawn(std::vector<int64_t> shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::rand(shape, random, at::TensorOptions().dtype(at::kFloat)) * 2 - 1;
}

TEST(ImageQuality, EqualImages) {
  const Tensor a = drawn({2, 3, 16, 20}, 1);
  for (int i = 0; i < 2; ++i) {
    EXPECT_DOUBLE_EQ(ssim(a, a)[i].item<double>(), 1);
    EXPECT_DOUBLE_EQ(psnr(a, a)[i].item<double>(), 100);
  }
}

TEST(ImageQuality, PsnrOfAKnownError) {
  const Tensor a = at::full({1, 1, 8, 8}, 0.25f), b = at::full({1, 1, 8, 8}, 0.45f);  // a tenth of the peak
  EXPECT_NEAR(psnr(a, b).item<double>(), 20, 1e-4);
}

/// Wang et al. 2004, eq. 13, with loops.
double by_hand(const Tensor& a, const Tensor& b, int side) {
  double window[11][11], all = 0;
  for (int i = 0; i < side; ++i)
    for (int j = 0; j < side; ++j) {
      const double y = i - (side - 1) / 2, x = j - (side - 1) / 2;
      all += window[i][j] = std::exp(-(x * x + y * y) / (2 * 1.5 * 1.5));
    }
  const auto p = a.accessor<float, 4>(), q = b.accessor<float, 4>();
  double sum = 0;
  int64_t positions = 0;
  for (int64_t c = 0; c < a.size(1); ++c)
    for (int64_t top = 0; top + side <= a.size(2); ++top)
      for (int64_t left = 0; left + side <= a.size(3); ++left) {
        double mx = 0, my = 0, vx = 0, vy = 0, xy = 0;
        const auto each = [&](const auto& take) {
          for (int i = 0; i < side; ++i)
            for (int j = 0; j < side; ++j)
              take(window[i][j] / all, (p[0][c][top + i][left + j] + 1.0) / 2, (q[0][c][top + i][left + j] + 1.0) / 2);
        };
        each([&](double w, double x, double y) { mx += w * x, my += w * y; });
        each([&](double w, double x, double y) {
          vx += w * (x - mx) * (x - mx), vy += w * (y - my) * (y - my), xy += w * (x - mx) * (y - my);
        });
        const double c1 = 0.0001, c2 = 0.0009;
        sum += (2 * mx * my + c1) * (2 * xy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2));
        ++positions;
      }
  return sum / double(positions);
}

TEST(ImageQuality, SsimAsThePaperWritesIt) {
  const Tensor a = drawn({1, 3, 15, 13}, 2), b = (a + drawn({1, 3, 15, 13}, 3) * 0.4).clamp(-1, 1);
  const double expected = by_hand(a, b, 11);
  EXPECT_LT(expected, 0.99);
  EXPECT_NEAR(ssim(a, b).item<double>(), expected, 1e-9);
  EXPECT_NEAR(ssim(b, a).item<double>(), expected, 1e-9);
}

TEST(ImageQuality, SmallImagesHaveASmallerWindow) {
  const Tensor a = drawn({1, 1, 8, 9}, 4), b = drawn({1, 1, 8, 9}, 5);
  EXPECT_NEAR(ssim(a, b).item<double>(), by_hand(a, b, 7), 1e-9);
}

TEST(ImageQuality, AnImageDoesNotDependOnItsBatch) {
  const Tensor a = drawn({3, 1, 16, 16}, 6), b = drawn({3, 1, 16, 16}, 7);
  EXPECT_NEAR(ssim(a, b)[1].item<double>(), ssim(a.narrow(0, 1, 1), b.narrow(0, 1, 1)).item<double>(), 1e-12);
}

}  // namespace
}  // namespace brume::test
