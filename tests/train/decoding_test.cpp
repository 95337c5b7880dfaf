// What sampling ends in becomes images, or an error that tells what to do.
#include "brume/diffusion/decoding.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <new>

#include "brume/config/errors.h"

namespace brume::test {
namespace {

/// Eight pixels per latent; has memory for so many latents at once.
class Forgetful final : public Autoencoder {
 public:
  explicit Forgetful(int64_t latents, bool libtorch = false) : latents_(latents), libtorch_(libtorch) {}
  ImageShape latent(const ImageShape& image) const override { return {1, image.height / 8, image.width / 8}; }
  Tensor encode_moments(const Tensor& images) const override { return images; }
  Tensor decode(const Tensor& z) const override {
    if (z.numel() > latents_ && libtorch_) return at::empty({int64_t(1) << 60});
    if (z.numel() > latents_) throw std::bad_alloc();
    return z.repeat_interleave(8, 2).repeat_interleave(8, 3);
  }
  std::vector<Weight> weights() const override { return {}; }

 private:
  int64_t latents_;
  bool libtorch_;
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

TEST(Decoding, SaysWhichPiecesFit) {
  EXPECT_EQ(error(Forgetful(300), at::zeros({1, 1, 64, 64})),
            "there is not enough memory to decode 1 image of 512x512: pieces of 128 pixels fit (sample.tile: 128)");
  EXPECT_EQ(error(Forgetful(300), at::zeros({1, 1, 64, 64}), 256),
            "there is not enough memory to decode 1 image of 512x512 in pieces of 256: pieces of 128 pixels fit (sample.tile: 128)");
  EXPECT_EQ(error(Forgetful(20), at::zeros({2, 1, 64, 32})),
            "there is not enough memory to decode 2 images at once of 256x512: no piece fits either; fewer images per batch need less");
  EXPECT_NE(error(Forgetful(300, true), at::zeros({1, 1, 64, 64})).find("bytes: pieces of 128 pixels fit"), std::string::npos)
      << "LibTorch's";
  EXPECT_EQ(decode_sampled(Forgetful(300), at::zeros({1, 1, 64, 64}), {1, 512, 512}, 128).sizes(), (std::vector<int64_t>{1, 1, 512, 512}));
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
