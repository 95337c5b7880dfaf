// group_norm_silu: the definition against plain loops and finite differences, and the fused kernel of every instruction set against the
// definition in float64. group_norm_bits_test.cpp has the bits and the mistakes.
#include "brume/nn/ops/group_norm.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstring>

#include "nn/group_norm_inputs.h"

namespace brume::test {
namespace {

/// The formula, in plain loops over float64.
at::Tensor by_loops(const Inputs& in, int64_t groups, bool silu) {
  const at::Tensor x = in.x.reshape({in.x.size(0), in.x.size(1), -1}).contiguous();
  at::Tensor y = at::empty_like(x);
  const int64_t batch = x.size(0), channels = x.size(1), positions = x.size(2), width = channels / groups;
  const auto from = x.accessor<double, 3>();
  auto to = y.accessor<double, 3>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t g = 0; g < groups; ++g) {
      double mean = 0, variance = 0;
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        for (int64_t i = 0; i < positions; ++i) mean += from[b][c][i];
      }
      mean /= static_cast<double>(width * positions);
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        for (int64_t i = 0; i < positions; ++i) variance += (from[b][c][i] - mean) * (from[b][c][i] - mean);
      }
      variance /= static_cast<double>(width * positions);
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        for (int64_t i = 0; i < positions; ++i) {
          double z = (from[b][c][i] - mean) / std::sqrt(variance + eps) * in.gamma[c].item<double>() + in.beta[c].item<double>();
          if (in.scale.defined()) z = z * (1 + in.scale[b][c].item<double>()) + in.shift[b][c].item<double>();
          to[b][c][i] = silu ? z / (1 + std::exp(-z)) : z;
        }
      }
    }
  }
  return y.reshape(in.x.sizes());
}

TEST_F(GroupNorm, DefinitionEqualsPlainLoops) {
  for (const Shape& shape : shapes) {
    if (shape.sizes[1] > 100 || shape.sizes.back() > 50) continue;  // the loops are slow
    for (bool silu : {false, true}) {
      for (bool modulated : {false, true}) {
        const Inputs in(shape.sizes, 3, modulated);
        EXPECT_LT(error(in.run(shape.groups, silu), by_loops(in, shape.groups, silu)), 1e-12) << describe(shape, "");
      }
    }
  }
}

TEST_F(GroupNorm, DefinitionHasTheGradientOfFiniteDifferences) {
  for (bool silu : {false, true}) {
    Inputs in({2, 6, 2, 3}, 1, true);
    const at::Tensor dy = normal_values(in.x.sizes().vec(), 9);
    const std::vector<at::Tensor> leaves = in.leaves(), computed = gradients(in.run(3, silu), leaves, dy);
    at::NoGradGuard no_grad;
    for (size_t i = 0; i < leaves.size(); ++i) {
      double* const values = leaves[i].data_ptr<double>();
      const at::Tensor expected = at::empty_like(leaves[i]);
      for (int64_t j = 0; j < leaves[i].numel(); ++j) {
        const double kept = values[j], step = 1e-5;
        values[j] = kept + step;
        const double above = (by_loops(in, 3, silu) * dy).sum().item<double>();
        values[j] = kept - step;
        const double below = (by_loops(in, 3, silu) * dy).sum().item<double>();
        values[j] = kept;
        expected.data_ptr<double>()[j] = (above - below) / (2 * step);
      }
      EXPECT_LT(error(computed[i], expected), 1e-8) << "input " << i;
    }
  }
}

/// Forward and all gradients of the fused kernel against the definition in float64, on the same rounded inputs.
void expect_close_to_definition(const Shape& shape, const Inputs& base, at::ScalarType dtype, at::ScalarType parameters, bool silu,
                                bool channels_last, const std::string& what) {
  // Beyond the rounding of the store itself: bf16's fast sigmoid, float32's own arithmetic.
  const double beyond = dtype == at::kBFloat16 ? 2e-4 : 1e-6, sums = 2 * beyond;
  const auto store = [&](const at::Tensor& value, at::ScalarType type) { return error(value.to(type), value); };
  Inputs in = base.as(dtype, parameters), exact = in.as(at::kDouble, at::kDouble);
  if (channels_last && in.x.dim() == 4) in.x = in.x.contiguous(at::MemoryFormat::ChannelsLast);
  if (channels_last && in.x.dim() == 3) in.x = in.x.transpose(1, 2).contiguous().transpose(1, 2);
  const at::Tensor dy = normal_values(shape.sizes, 7, dtype), exact_dy = dy.to(at::kDouble);
  const at::Tensor plain = in.run(shape.groups, silu);  // nothing requires a gradient yet
  const std::vector<at::Tensor> leaves = in.leaves(), exact_leaves = exact.leaves();
  const at::Tensor y = in.run(shape.groups, silu), exact_y = exact.run(shape.groups, silu);
  EXPECT_TRUE(at::equal(plain, y)) << what;
  EXPECT_EQ(y.scalar_type(), dtype);
  EXPECT_EQ(y.sizes(), in.x.sizes());
  EXPECT_TRUE(y.dim() == 4 ? y.is_contiguous(at::MemoryFormat::ChannelsLast) : y.transpose(1, 2).is_contiguous()) << what;
  EXPECT_LT(error(y, exact_y), store(exact_y, dtype) + beyond) << what;
  const auto computed = gradients(y, leaves, dy), expected = gradients(exact_y, exact_leaves, exact_dy);
  // Where a group has very few elements the terms of dx cancel; its size is then that of dy * rstd.
  const at::Tensor grouped = exact.x.detach().reshape({exact.x.size(0), shape.groups, -1});
  const at::Tensor rstd = (grouped.var(2, false, true) + eps).rsqrt();
  const double size_of_dx = (rstd * exact_dy.reshape(grouped.sizes())).norm().item<double>();
  EXPECT_LT(error(computed[0], expected[0], size_of_dx), store(expected[0], dtype) + beyond) << what << " dx";
  for (size_t i = 1; i < computed.size(); ++i) {
    EXPECT_EQ(computed[i].scalar_type(), leaves[i].scalar_type());
    const double size = exact_dy.norm().item<double>() * 0.05;  // a sum may happen to be near zero
    EXPECT_LT(error(computed[i], expected[i], size), store(expected[i], leaves[i].scalar_type()) + sums) << what << " parameter " << i;
  }
}

TEST_F(GroupNorm, KernelsAgreeWithTheDefinition) {
  for (Isa isa : available()) {
    brume::nn::set_isa(isa);
    for (const Shape& shape : shapes) {
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        for (int bits = 0; bits < 16; ++bits) {
          const bool silu = bits & 1, modulated = bits & 2, channels_last = bits & 4, shifted = bits & 8;
          const Inputs base(shape.sizes, shifted ? 30 : 0, modulated);
          const auto parameters = modulated && !silu && dtype == at::kBFloat16 ? at::kBFloat16 : at::kFloat;
          expect_close_to_definition(
              shape, base, dtype, parameters, silu, channels_last,
              describe(shape, std::string(isa_name(isa)) + " " + at::toString(dtype) + " case " + std::to_string(bits)));
        }
      }
    }
  }
}

TEST_F(GroupNorm, AddsAnEmbeddingFirst) {
  for (Isa isa : available()) {
    brume::nn::set_isa(isa);
    for (const Shape& shape : shapes) {
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const std::string what = describe(shape, std::string(isa_name(isa)) + " " + at::toString(dtype));
        for (const double far : {0.0, 30.0}) {  // the embedding moves the mean, and each channel's apart
          Inputs in = Inputs(shape.sizes, 0, false).as(dtype, at::kFloat);
          at::Tensor added = far + 0.7 * normal_values({shape.sizes[0], shape.sizes[1]}, 3, at::kFloat);
          std::vector<int64_t> per_image(shape.sizes.size(), 1);
          per_image[0] = shape.sizes[0], per_image[1] = shape.sizes[1];
          Inputs exact = in.as(at::kDouble, at::kDouble);
          exact.x = (exact.x + added.to(at::kDouble).reshape(per_image)).set_requires_grad(true);
          const at::Tensor wanted = exact.run(shape.groups, true);
          const auto run = [&](int64_t first, int64_t count) {
            return group_norm_silu(in.x.narrow(0, first, count), shape.groups, in.gamma, in.beta, eps, true, {}, {},
                                   added.narrow(0, first, count));
          };
          const double store = error(wanted.to(dtype), wanted), beyond = dtype == at::kBFloat16 ? 2e-4 : far > 0 ? 2e-5 : 1e-6;
          const at::Tensor y = run(0, shape.sizes[0]);
          EXPECT_LT(error(y, wanted), store + beyond) << what << " far " << far;
          const int64_t last = shape.sizes[0] - 1;
          EXPECT_TRUE(at::equal(run(last, 1), y.narrow(0, last, 1))) << what << ": the image alone";
          if (far > 0) continue;  // recorded, the sum is rounded to x's type
          added.set_requires_grad(true);
          const at::Tensor recorded = run(0, shape.sizes[0]), dy = normal_values(shape.sizes, 7, dtype);
          EXPECT_LT(error(recorded, wanted), 5 * store + beyond) << what << " recorded";
          const at::Tensor expected = gradients(wanted, {exact.x}, dy.to(at::kDouble))[0].flatten(2).sum(2);
          EXPECT_LT(error(gradients(recorded, {added}, dy)[0], expected, dy.norm().item<double>()), dtype == at::kBFloat16 ? 1e-2 : 1e-6)
              << what << " gradient";
        }
      }
    }
  }
}

TEST_F(GroupNorm, SiluIsAccurateOverTheWholeRange) {
  const at::Tensor z = at::linspace(-85, 85, 40001, at::TensorOptions().dtype(at::kFloat)), zero = at::zeros_like(z);
  const at::Tensor x = normal_values({1, 40001, 1, 1}, 3, at::kFloat);
  const at::Tensor exact = z.to(at::kDouble) * z.to(at::kDouble).sigmoid();
  for (Isa isa : available()) {
    brume::nn::set_isa(isa);
    const at::Tensor y = group_norm_silu(x, 1, zero, z, eps, true).reshape({-1});  // gamma = 0: z is beta
    EXPECT_LT((((y.to(at::kDouble) - exact) / exact).abs().nan_to_num()).max().item<double>(), 5e-7) << isa_name(isa);
    const at::Tensor low = group_norm_silu(x.to(at::kBFloat16), 1, zero, z, eps, true).reshape({-1});
    EXPECT_LT((((low.to(at::kDouble) - exact) / exact).abs().nan_to_num()).max().item<double>(), 4.1e-3) << isa_name(isa);
    for (double end : {-1e30, -200.0, 200.0, 1e30}) {
      const at::Tensor far = group_norm_silu(x, 1, zero, zero + end, eps, true),
                       low_far = group_norm_silu(x.to(at::kBFloat16), 1, zero, zero + end, eps, true);
      for (const at::Tensor& value : {far, low_far}) {
        EXPECT_NEAR(value.max().item<double>() / std::abs(end), end > 0 ? 1 : 0, 4e-3) << isa_name(isa) << " " << end;
        EXPECT_NEAR(value.min().item<double>() / std::abs(end), end > 0 ? 1 : 0, 4e-3) << isa_name(isa) << " " << end;
      }
    }
  }
}

TEST_F(GroupNorm, Bfloat16IsRoundedToNearestEven) {
  // every upper half with lower halves around the tie, as beta with gamma = 0
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; high += 37) {
    if ((high & 0x7f80) == 0x7f80) continue;
    for (uint32_t low : {0x0000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const uint32_t bits = high << 16 | low;
      float value = 0;
      std::memcpy(&value, &bits, sizeof value);
      values.push_back(value);
    }
  }
  const int64_t count = static_cast<int64_t>(values.size());
  const at::Tensor beta = at::from_blob(values.data(), {count}, at::TensorOptions().dtype(at::kFloat)).clone();
  const at::Tensor x = at::zeros({1, count, 1, 1}, at::TensorOptions().dtype(at::kBFloat16));
  for (Isa isa : available()) {
    brume::nn::set_isa(isa);
    EXPECT_TRUE(at::equal(group_norm_silu(x, 1, at::zeros_like(beta), beta, eps, false).reshape({-1}), beta.to(at::kBFloat16)))
        << isa_name(isa);
  }
}

TEST_F(GroupNorm, AnOutlierAtTheFirstPositionCostsNoPrecision) {
  for (Isa isa : available()) {
    brume::nn::set_isa(isa);
    Inputs in({1, 32, 64, 64}, 0, false);
    in.x.select(2, 0).select(2, 0).fill_(3e4);
    in = in.as(at::kFloat, at::kFloat);
    const at::Tensor exact = in.as(at::kDouble, at::kDouble).run(8, false), y = in.run(8, false);
    const auto rest = [](const at::Tensor& t) { return t.slice(2, 1).to(at::kDouble); };
    EXPECT_LT(error(rest(y), rest(exact)), 1e-6) << isa_name(isa);
  }
}

TEST_F(GroupNorm, NanStaysInItsImageAndGroup) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (Isa isa : available()) {
      brume::nn::set_isa(isa);
      Inputs in = Inputs({3, 32, 4, 4}, 0, false).as(dtype, at::kFloat);
      in.x[1][5][2][2] = std::nan("");
      const at::Tensor bad = in.run(8, true).to(at::kFloat).isnan();
      EXPECT_TRUE(bad[1].slice(0, 4, 8).all().item<bool>()) << isa_name(isa);
      EXPECT_EQ(bad.sum().item<int64_t>(), 4 * 16) << isa_name(isa);
    }
  }
}

TEST_F(GroupNorm, AcceptsAnyStrides) {
  const Inputs in = Inputs({2, 32, 6, 5}, 0, true).as(at::kBFloat16, at::kFloat);
  const at::Tensor expected = in.run(8, true);
  Inputs other = in;
  other.x = in.x.transpose(2, 3).contiguous().transpose(2, 3);
  EXPECT_TRUE(at::equal(other.run(8, true), expected));
  other.x = at::cat({in.x, in.x}, 1).slice(1, 0, 32);  // gaps between images
  EXPECT_TRUE(at::equal(other.run(8, true), expected));
  const at::Tensor both = at::cat({in.scale, in.shift}, 1);
  other.scale = both.slice(1, 0, 32);
  other.shift = both.slice(1, 32);
  EXPECT_TRUE(at::equal(other.run(8, true), expected));
  // one position: every stride is ambiguous
  const at::Tensor corner = in.x.slice(2, 0, 1).slice(3, 0, 1), copy = corner.clone(at::MemoryFormat::Contiguous);
  Inputs single = in;
  single.x = copy;
  const at::Tensor once = single.run(8, true);
  single.x = corner;
  EXPECT_TRUE(at::equal(single.run(8, true), once));
  single.x = copy.squeeze(3);
  EXPECT_TRUE(at::equal(single.run(8, true), once.squeeze(3)));
  // an expanded gradient, as sum().backward() gives
  Inputs learning = in;
  const std::vector<at::Tensor> leaves = learning.leaves();
  const at::Tensor y = learning.run(8, true), one = at::ones({}, y.options());
  EXPECT_TRUE(at::equal(gradients(y, leaves, one.expand(y.sizes()), true)[0].isnan().sum(), at::zeros({}, at::kLong)));
  EXPECT_TRUE(at::equal(gradients(learning.run(8, true), leaves, one.expand(y.sizes()))[0],
                        gradients(learning.run(8, true), leaves, at::ones_like(y))[0]));
}

TEST_F(GroupNorm, SkipsAutogradWhereNothingLearns) {
  Inputs in = Inputs({2, 32, 4, 4}, 0, true).as(at::kFloat, at::kFloat);
  EXPECT_FALSE(in.run(8, true).requires_grad());
  in.gamma.set_requires_grad(true);
  EXPECT_TRUE(in.run(8, true).requires_grad());
  at::NoGradGuard no_grad;
  EXPECT_FALSE(in.run(8, true).requires_grad());
}

TEST_F(GroupNorm, GradientOfTheGradientIsThatOfTheDefinition) {
  Inputs in = Inputs({2, 6, 2, 3}, 1, true).as(at::kFloat, at::kFloat), exact = in.as(at::kDouble, at::kDouble);
  const at::Tensor dy = normal_values(in.x.sizes().vec(), 9);
  const auto second = [](Inputs& inputs, const at::Tensor& upstream) {
    const std::vector<at::Tensor> leaves = inputs.leaves();
    inputs.scale = leaves[3] + 0.1 * leaves[0].mean({2, 3});  // an input that depends on another
    const std::vector<at::Tensor> first = gradients(inputs.run(3, true), leaves, upstream, true);
    at::Tensor penalty = at::zeros({}, upstream.options());
    for (const at::Tensor& g : first) penalty = penalty + (g * g).sum();
    return gradients(penalty, leaves, at::ones({}, upstream.options()));
  };
  const auto computed = second(in, dy.to(at::kFloat)), expected = second(exact, dy);
  for (size_t i = 0; i < computed.size(); ++i) EXPECT_LT(error(computed[i], expected[i]), 1e-4) << "input " << i;
}

}  // namespace
}  // namespace brume::test
