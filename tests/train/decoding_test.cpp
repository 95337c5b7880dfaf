// What sampling ends in becomes images, or an error that tells what to do.
#include "brume/diffusion/decoding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "brume/config/errors.h"
#include "brume/core/memory_limit.h"
#include "brume/core/warnings.h"

namespace brume::test {
namespace {

/// Eight pixels per latent; has memory for so many latents at once.
class Forgetful final : public Autoencoder {
 public:
  explicit Forgetful(int64_t latents, bool libtorch = false, int64_t bytes_per_pixel = 0)
      : latents_(latents), libtorch_(libtorch), bytes_per_pixel_(bytes_per_pixel) {}
  ImageShape latent(const ImageShape& image) const override { return {1, image.height / 8, image.width / 8}; }
  Tensor encode_moments(const Tensor& images) const override { return images; }
  Tensor decode(const Tensor& z) const override {
    if (z.numel() > latents_ && libtorch_) return at::empty({int64_t(1) << 60});
    if (z.numel() > latents_) throw std::bad_alloc();
    widest_ = std::max(widest_, z.numel());
    return z.repeat_interleave(8, 2).repeat_interleave(8, 3);
  }
  std::vector<Weight> weights() const override { return {}; }
  int64_t decoding_memory(const ImageShape& image) const override { return bytes_per_pixel_ * image.height * image.width; }
  int64_t widest() const { return widest_; }  ///< latents that were decoded at once

 private:
  int64_t latents_;
  bool libtorch_;
  int64_t bytes_per_pixel_;
  mutable int64_t widest_ = 0;
};

std::string error(const Autoencoder& autoencoder, const Tensor& z, int64_t tile = 0) {
  try {
    decode_sampled(autoencoder, z, {1, 8 * z.size(2), 8 * z.size(3)}, tile);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

TEST(Decoding, IsTheAutoencoders) {
  const Forgetful autoencoder(1 << 20);
  const Tensor z = at::randn({2, 1, 4, 6});
  EXPECT_TRUE(decode_sampled(autoencoder, z, {1, 32, 48}, 0).equal(autoencoder.decode(z)));
}

/// Returns what decoding warns of. The images are those of latents that do not depend on their neighbours, so that tiles change nothing.
std::string warning(const Autoencoder& autoencoder, const Tensor& z, int64_t tile = 0) {
  std::string said;
  const WarningScope scope([&](const std::string& text) { said += text; });
  const Tensor images = decode_sampled(autoencoder, z, {1, 8 * z.size(2), 8 * z.size(3)}, tile);
  EXPECT_LT((images - z.repeat_interleave(8, 2).repeat_interleave(8, 3)).abs().max().item<double>(), 1e-6);
  return said;
}

TEST(Decoding, TakesTilesThatFitWhenMemoryRunsOut) {
  const Tensor z = at::randn({1, 1, 64, 64});
  EXPECT_EQ(warning(Forgetful(300), z),
            "512x512 pixels are decoded in tiles of 128, because there is not enough memory (sample.tile: 128)");
  EXPECT_EQ(warning(Forgetful(300), z, 256),
            "512x512 pixels are decoded in tiles of 128, because there is not enough memory for tiles of 256 (sample.tile: 128)");
  EXPECT_NE(warning(Forgetful(300, true), z).find("bytes (sample.tile: 128)"), std::string::npos) << "LibTorch's";
  EXPECT_EQ(warning(Forgetful(300), z, 128), "");
  EXPECT_EQ(error(Forgetful(10), at::zeros({2, 1, 64, 32})),
            "there is not enough memory to decode an image of 256x512: no tile fits either");
}

TEST(Decoding, TakesOneImageAfterTheOtherBeforeTiles) {
  const Tensor z = at::randn({3, 1, 64, 64});
  const Forgetful of_one(64 * 64);
  EXPECT_EQ(warning(of_one, z), "") << "memory ran out";
  EXPECT_EQ(of_one.widest(), 64 * 64);
  const Forgetful greedy(1 << 20, false, free_memory() / (512 * 512) / 2);
  EXPECT_EQ(warning(greedy, z), "") << "memory would have run out";
  EXPECT_EQ(greedy.widest(), 64 * 64);
}

TEST(Decoding, TakesTilesBeforeTheSystemEndsTheProcess) {
  const Tensor z = at::randn({1, 1, 64, 64});
  const int64_t all = free_memory() / (512 * 512);  // bytes per pixel of an image that would take all
  const Forgetful greedy(1 << 20, false, 2 * all);
  EXPECT_EQ(warning(greedy, z).find("512x512 pixels are decoded in tiles of 256, because the whole takes about "), 0u);
  EXPECT_EQ(greedy.widest(), 32 * 32);
  const Forgetful modest(1 << 20, false, all / 2);
  EXPECT_EQ(warning(modest, z), "");
  EXPECT_EQ(modest.widest(), 64 * 64);
  const Forgetful boundless(1 << 20, false, int64_t(1) << 40);
  EXPECT_NE(warning(boundless, z).find("in tiles of 64, "), std::string::npos) << "at least eight latents per side";
}

TEST(Decoding, WhatIsNoNumberIsNoImage) {
  for (const double value : {double(NAN), double(INFINITY)}) {
    const Tensor z = at::zeros({1, 1, 4, 4});
    z[0][0][2][3] = value;
    EXPECT_EQ(error(Forgetful(300), z).find("sampling ended in NaN or infinity"), 0u);
  }
}

}  // namespace
}  // namespace brume::test
