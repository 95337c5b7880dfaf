// Decoding and encoding in pieces gives what the whole gives, for a first stage that sees near.
#include "brume/diffusion/tiling.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "brume/nn/blocks/latent_shape.h"
#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/ops.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// Two convolutions each way; 4 x 4 pixels per latent. A latent sees 5 pixels around its own, a pixel 2 latents around its own.
class Near final : public Autoencoder {
 public:
  ImageShape latent(const ImageShape& image) const override { return nn::latent_shape(image, 4, 4); }
  Tensor encode_moments(const Tensor& images) const override { return in2_(nn::downsample(nn::relu(in1_(nn::downsample(images))))); }
  Tensor decode(const Tensor& z) const override { return out2_(nn::upsample(nn::relu(out1_(nn::upsample(z))))); }
  std::vector<Weight> weights() const override { return build_.weights(); }

 private:
  nn::Builder build_{1};
  nn::Conv2d in1_ = build_.conv2d("in1", 3, 8, 3), in2_ = build_.conv2d("in2", 8, 4, 3), out1_ = build_.conv2d("out1", 4, 8, 3),
             out2_ = build_.conv2d("out2", 8, 3, 3);
};

Tensor drawn(std::vector<int64_t> shape) {
  at::Generator random = at::detail::createCPUGenerator(1);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

double apart(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

TEST(Tiling, IsTheWholeWhereTheNetworkSeesNear) {
  const Near near;
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{320, 320}, {132, 300}, {516, 128}}) {
    const Tensor images = drawn({2, 3, height, width});
    const Tensor z = near.encode(images);
    EXPECT_LT(apart(encode_moments_tiled(near, images, {128}), z), 1e-5) << height << "x" << width;
    EXPECT_LT(apart(decode_tiled(near, z, {3, height, width}, {128}), near.decode(z)), 1e-5) << height << "x" << width;
  }
}

TEST(Tiling, ASmallTileShowsItsEdges) {  // the test above can fail
  const Near near;
  const Tensor z = drawn({1, 4, 32, 32});
  const Tensor whole = near.decode(z), pieces = decode_tiled(near, z, {3, 128, 128}, {16});
  EXPECT_GT(apart(pieces, whole), 1e-4);
  EXPECT_EQ(pieces.sizes(), whole.sizes());
}

TEST(Tiling, AnImageOfOnePieceIsTheSameBits) {
  const Near near;
  const Tensor z = drawn({1, 4, 16, 16});
  EXPECT_TRUE(decode_tiled(near, z, {3, 64, 64}, {64}).equal(near.decode(z)));
}

TEST(Tiling, NeedsFourLatentsASide) {
  EXPECT_EQ(error_of([] {
              decode_tiled(Near(), drawn({1, 4, 16, 16}), {3, 64, 64}, {12});
            }),
            "tile: 12 pixels are too few; 16 at least, four latents per side");
}

}  // namespace
}  // namespace brume::test
