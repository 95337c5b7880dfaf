// group_norm_silu: an image's bits depend on that image alone, and mistakes are named with both shapes.
#include <cstring>
#include <stdexcept>
#include <thread>

#include "nn/group_norm_inputs.h"

namespace brume::test {
namespace {

struct Bits {
  at::Tensor y;
  std::vector<at::Tensor> gradients;
};

Bits bits_of(Inputs in, int64_t groups, const at::Tensor& dy) {
  const std::vector<at::Tensor> leaves = in.leaves();
  const at::Tensor y = in.run(groups, true);
  return {y.detach(), gradients(y, leaves, dy)};
}

bool same(const Bits& a, const Bits& b) {
  if (!at::equal(a.y, b.y)) return false;
  for (size_t i = 0; i < a.gradients.size(); ++i) {
    if (!at::equal(a.gradients[i], b.gradients[i])) return false;
  }
  return true;
}

const std::vector<Shape> batches = {{{16, 40, 7, 7}, 8}, {{16, 32, 40, 40}, 32}, {{16, 64, 64, 64}, 32}};

TEST_F(GroupNorm, AnImageHasTheSameBitsInAnyBatch) {
  for (const Shape& shape : batches) {
    for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Inputs all = Inputs(shape.sizes, 1, true).as(dtype, at::kFloat);
      const at::Tensor dy = normal_values(shape.sizes, 5, dtype);
      const Bits together = bits_of(all, shape.groups, dy);
      for (int64_t size : {1, 2, 3, 5}) {
        const auto some = [&](const at::Tensor& t) { return t.slice(0, 7, 7 + size); };
        Inputs part = all;
        part.x = some(all.x).clone();
        part.scale = some(all.scale).clone();
        part.shift = some(all.shift).clone();
        const Bits alone = bits_of(part, shape.groups, some(dy));
        EXPECT_TRUE(at::equal(alone.y, some(together.y))) << describe(shape, std::to_string(size));
        for (size_t i : {0, 3, 4}) {
          EXPECT_TRUE(at::equal(alone.gradients[i], some(together.gradients[i]))) << describe(shape, std::to_string(size));
        }
      }
    }
  }
}

TEST_F(GroupNorm, BitsDoNotDependOnTheNumberOfThreads) {
  for (const Shape& shape : batches) {
    for (int64_t batch : {1, 3, 16}) {
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        std::vector<int64_t> sizes = shape.sizes;
        sizes[0] = batch;
        const Inputs in = Inputs(sizes, 1, true).as(dtype, at::kFloat);
        const at::Tensor dy = normal_values(sizes, 5, dtype);
        at::set_num_threads(1);
        const Bits one = bits_of(in, shape.groups, dy);
        for (int threads : {2, 3, 7}) {
          at::set_num_threads(threads);
          EXPECT_TRUE(same(one, bits_of(in, shape.groups, dy))) << describe(shape, std::to_string(batch));
        }
      }
    }
  }
}

TEST_F(GroupNorm, BitsDoNotDependOnWhatRunsAtTheSameTime) {
  const int count = 8;
  std::vector<Inputs> inputs;
  std::vector<at::Tensor> upstream;
  std::vector<Bits> serial(count), concurrent(count);
  for (int i = 0; i < count; ++i) {
    const std::vector<int64_t> sizes = {1 + i % 3, 64, 40, 40};
    inputs.push_back(Inputs(sizes, 1, true, static_cast<uint64_t>(10 * i)).as(i % 2 == 0 ? at::kFloat : at::kBFloat16, at::kFloat));
    upstream.push_back(normal_values(sizes, 5, inputs.back().x.scalar_type()));
    serial[i] = bits_of(inputs[i], 32, upstream[i]);
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 5; ++repeat) concurrent[i] = bits_of(inputs[i], 32, upstream[i]);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int i = 0; i < count; ++i) EXPECT_TRUE(same(serial[i], concurrent[i])) << i;
}

// ---- mistakes

std::string message_of(const Inputs& in, int64_t groups) {
  try {
    in.run(groups, true);
  } catch (const std::invalid_argument& mistake) {
    return mistake.what();
  }
  return "no error";
}

TEST_F(GroupNorm, NamesBothShapesOfAMismatch) {
  const Inputs good({2, 32, 4, 4}, 0, true);
  Inputs bad = good;
  bad.gamma = at::ones({16});
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: gamma is [16], and x, [2, 32, 4, 4], needs [32]");
  bad = good;
  bad.beta = at::Tensor();
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: beta is missing");
  bad = good;
  bad.shift = at::ones({3, 32});
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: shift is [3, 32], and x, [2, 32, 4, 4], needs [2, 32]");
  bad.shift = at::Tensor();
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: scale and shift go together, but only one is given");
  bad = good;
  bad.scale = bad.shift = at::ones({2, 32}, at::kLong);
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: scale is not floating point");
  EXPECT_THROW(group_norm_silu(good.x, 8, good.gamma, good.beta, eps, true, {}, {}, at::zeros({1, 32})), std::invalid_argument);
  EXPECT_EQ(message_of(good, 5), "group_norm_silu: 5 groups do not divide the 32 channels of x, [2, 32, 4, 4]");
  EXPECT_EQ(message_of(good, 0), "group_norm_silu: 0 groups do not divide the 32 channels of x, [2, 32, 4, 4]");
  bad = good;
  bad.x = at::ones({2, 32});
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: x is [2, 32]; expected [B, C, H, W] or [B, C, N]");
  bad.x = at::ones({2, 32, 0, 4});
  EXPECT_EQ(message_of(bad, 8), "group_norm_silu: x is empty: [2, 32, 0, 4]");
}

TEST_F(GroupNorm, InstructionSetsAreNamed) {
  for (Isa isa : {Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) EXPECT_EQ(brume::nn::parse_isa(isa_name(isa)), isa);
  try {
    brume::nn::parse_isa("avx1024");
    FAIL();
  } catch (const std::invalid_argument& mistake) {
    EXPECT_STREQ(mistake.what(), "unknown instruction set 'avx1024'; allowed: reference, generic, avx2, avx512, avx512_bf16, amx");
  }
  EXPECT_TRUE(brume::nn::isa_supported(Isa::generic));
}

}  // namespace
}  // namespace brume::test
