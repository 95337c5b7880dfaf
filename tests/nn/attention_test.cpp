// nn::attention against whole products in float64: every instruction set, masks, head widths, gradients by blocks of queries; that
// padding has no part in anything; that an image's bits depend on that image alone; and that no matrix of all scores is kept.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/ops.h"

namespace brume::test {
namespace {

using at::Tensor;
using nn::AttentionMask;
using nn::Isa;

Tensor normal(std::vector<int64_t> sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::TensorOptions().dtype(at::kDouble));
}

struct Shape {
  int64_t batch, heads, queries, keys, width;
  std::string text() const { return fmt::format("{}x{}, {} queries, {} keys, width {}", batch, heads, queries, keys, width); }
};

struct Inputs {
  Tensor q, k, v;
  Inputs(const Shape& s, at::ScalarType type, uint64_t seed = 1) {
    const auto heads_last = [&](int64_t n, uint64_t more) {  // as projections give them
      return normal({s.batch, n, s.heads, s.width}, seed + more).to(type).transpose(1, 2);
    };
    q = heads_last(s.queries, 0) * 2, k = heads_last(s.keys, 1), v = heads_last(s.keys, 2);
  }
  Inputs(Tensor q, Tensor k, Tensor v) : q(std::move(q)), k(std::move(k)), v(std::move(v)) {}
  Inputs exact() const { return {q.to(at::kDouble), k.to(at::kDouble), v.to(at::kDouble)}; }
  std::vector<Tensor> leaves() {
    for (Tensor* t : {&q, &k, &v}) *t = t->detach().set_requires_grad(true);
    return {q, k, v};
  }
  Tensor run(const AttentionMask& mask) const { return nn::attention(q, k, v, mask); }
};

/// The definition. A query that sees no key gets the mean of the values.
Tensor definition(const Inputs& in, const AttentionMask& mask) {
  Tensor seen = at::ones({in.q.size(0), 1, in.q.size(2), in.k.size(2)}, at::kBool);
  if (mask.keys.defined()) seen = seen.logical_and((mask.keys != 0).unsqueeze(1).unsqueeze(1));
  if (mask.causal) seen = seen.tril();
  const Tensor scores = at::matmul(in.q, in.k.transpose(2, 3)) / std::sqrt(double(in.q.size(3)));
  const Tensor weights = at::where(seen, scores.exp(), at::zeros({}, at::kDouble)), total = weights.sum(-1, true);
  const Tensor mean = at::full({}, 1.0 / double(in.k.size(2)), at::kDouble);
  return at::matmul(at::where(total == 0, mean, weights / at::where(total == 0, at::ones({}, at::kDouble), total)), in.v);
}

/// [B, M]: some padding at the end, a hole, and one image of padding alone.
Tensor padding(const Shape& s) {
  const Tensor mask = at::ones({s.batch, s.keys});
  mask[0].narrow(0, s.keys - s.keys / 3, s.keys / 3).zero_();
  mask[0].narrow(0, s.keys / 4, 1).zero_();
  if (s.batch > 1) mask[s.batch - 1].zero_();
  return mask;
}

std::vector<AttentionMask> masks(const Shape& s) {
  Tensor begins_late = padding(s);
  begins_late.narrow(1, 0, 1).zero_();  // with causal, the first query sees nothing
  return {{}, {padding(s), false}, {Tensor(), true}, {begins_late, true}};
}
std::string text(const AttentionMask& m) { return std::string(m.keys.defined() ? ", padded" : "") + (m.causal ? ", causal" : ""); }

/// Largest error as a share of the largest value.
double error(const Tensor& value, const Tensor& exact) {
  return (value.to(at::kDouble) - exact).abs().max().item<double>() / exact.abs().max().item<double>();
}

std::vector<Tensor> gradients(const Tensor& y, const std::vector<Tensor>& leaves, const Tensor& dy, bool create = false) {
  return torch::autograd::grad({y}, leaves, {dy}, create, create, true);
}

/// Every one of this processor; if BRUME_ISA names one, that one.
std::vector<Isa> available() {
  if (std::getenv("BRUME_ISA") != nullptr) return {nn::isa()};
  std::vector<Isa> result;
  for (const Isa isa : {Isa::reference, Isa::generic, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx})
    if (nn::isa_supported(isa)) result.push_back(isa);
  return result;
}

class Attention : public testing::Test {
 protected:
  ~Attention() override { nn::set_isa(isa_); }
  Isa isa_ = nn::isa();
};

const std::vector<Shape> small = {{2, 3, 9, 9, 8},    {3, 2, 1, 5, 31},   {2, 1, 40, 24, 40}, {1, 2, 33, 77, 7},
                                  {2, 2, 17, 17, 64}, {2, 1, 6, 50, 160}, {1, 1, 300, 3, 80}};
// From here on blocks are taken, which do not divide the queries.
const Shape large_self{2, 4, 777, 777, 20}, large_cross{2, 5, 1037, 431, 40};

TEST_F(Attention, IsTheDefinitionOnEveryInstructionSet) {
  const at::NoGradGuard no_grad;
  std::vector<Shape> shapes = small;
  shapes.insert(shapes.end(), {large_self, large_cross});
  for (const Isa isa : available())
    for (const Shape& s : shapes)
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        nn::set_isa(isa);
        const Inputs in(s, type);
        // bf16: 2^-9 of the result, and of weights and scores if LibTorch's products make them
        const double allowed = type == at::kFloat ? 3e-6 : isa == Isa::reference ? 3e-2 : 5e-3;
        for (const AttentionMask& mask : masks(s)) {
          const Tensor out = in.run(mask);
          EXPECT_EQ(out.scalar_type(), type);
          EXPECT_LE(error(out, definition(in.exact(), mask)), allowed)
              << isa_name(isa) << ", " << toString(type) << ", " << s.text() << text(mask);
        }
      }
}

TEST_F(Attention, WhatIsNoNumberIsNeverAQuietZero) {
  const at::NoGradGuard no_grad;
  for (const Shape& s : {Shape{1, 2, 40, 70, 24}, Shape{1, 2, 260, 280, 24}})
    for (const Isa isa : available())
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
        for (const double value : {double(NAN), double(INFINITY)}) {
          nn::set_isa(isa);
          const Inputs in(s, type);
          in.q[0][1][33][5] = value;
          const Tensor bad = in.run({}).isfinite().logical_not();
          EXPECT_TRUE(bad[0][1][33].all().item<bool>()) << isa_name(isa) << ", " << toString(type) << ", a query of " << value;
          EXPECT_EQ(bad.sum().item<int64_t>(), s.width) << isa_name(isa) << ", " << toString(type) << ", no other query";
          const Inputs keys(s, type);
          keys.k[0][0][66] = NAN;
          EXPECT_TRUE(keys.run({})[0][0].isnan().all().item<bool>()) << isa_name(isa) << ", " << toString(type) << ", a key";
        }
}

TEST_F(Attention, GradientsAreThoseOfTheDefinition) {
  for (const Shape& s : {small[0], small[2], small[5], large_self, large_cross})
    for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16})
      for (const AttentionMask& mask : masks(s)) {
        Inputs in(s, type), exact = in.exact();
        const Tensor dy = normal(in.q.sizes().vec(), 9).to(type);
        const auto leaves = in.leaves(), exact_leaves = exact.leaves();
        const Tensor y = in.run(mask), y_exact = definition(exact, mask);
        const double allowed = type == at::kDouble ? 1e-12 : type == at::kFloat ? 5e-6 : 4e-2;
        EXPECT_LE(error(y.detach(), y_exact.detach()), allowed) << s.text() << text(mask);
        const auto d = gradients(y, leaves, dy), d_exact = gradients(y_exact, exact_leaves, dy.to(at::kDouble));
        for (size_t i = 0; i < 3; ++i)
          EXPECT_LE(error(d[i], d_exact[i]), allowed) << "input " << i << ", " << toString(type) << ", " << s.text() << text(mask);
      }
}

TEST_F(Attention, GradientOfTheGradientIsThatOfTheDefinition) {
  const auto second = [](Inputs in, const AttentionMask& mask, bool ours) {
    const auto leaves = in.leaves();
    const Tensor y = ours ? in.run(mask) : definition(in, mask);
    Tensor penalty = at::zeros({}, at::kDouble);
    for (const Tensor& g : gradients(y, leaves, normal(y.sizes().vec(), 9), true)) penalty = penalty + (g * g).sum();
    return gradients(penalty, leaves, at::ones({}, at::kDouble));
  };
  const AttentionMask mask{padding(large_self), false};
  const auto ours = second(Inputs(large_self, at::kDouble), mask, true), wanted = second(Inputs(large_self, at::kDouble), mask, false);
  for (size_t i = 0; i < 3; ++i) EXPECT_LE(error(ours[i], wanted[i]), 1e-9) << "input " << i;
}

TEST_F(Attention, PaddingHasNoPartInAnything) {
  const at::NoGradGuard no_grad;
  const Shape s{2, 3, 37, 24, 40};
  for (const Isa isa : available()) {
    if (isa == Isa::reference) continue;  // LibTorch's products take other paths for other sizes
    nn::set_isa(isa);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      const Inputs in(s, type);
      const Tensor alone = in.run({}), mask = at::cat({at::ones({2, 24}), at::zeros({2, 7})}, 1);
      const auto longer = [&](const Tensor& t, double value) { return at::cat({t, at::full({2, 3, 7, 40}, value, t.options())}, 2); };
      EXPECT_TRUE(at::equal(Inputs(in.q, longer(in.k, 5), longer(in.v, -3)).run({mask}), alone)) << isa_name(isa);
      EXPECT_TRUE(at::equal(Inputs(in.q, longer(in.k, NAN), longer(in.v, NAN)).run({mask}), alone)) << isa_name(isa);
    }
  }
}

TEST_F(Attention, AnImageHasTheSameBitsInAnyBatch) {
  const at::NoGradGuard no_grad;
  for (const Isa isa : available()) {
    if (isa == Isa::reference) continue;
    nn::set_isa(isa);
    for (const Shape& s : {Shape{7, 3, 65, 24, 40}, Shape{7, 2, 300, 300, 20}})
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
        for (const AttentionMask& mask : masks(s)) {
          const Inputs in(s, type);
          const Tensor all = in.run(mask);
          for (const int64_t count : {1, 2, 3}) {
            const auto some = [&](const Tensor& t) { return t.narrow(0, 4, count).clone(); };
            const Tensor part =
                Inputs(some(in.q), some(in.k), some(in.v)).run({mask.keys.defined() ? some(mask.keys) : Tensor(), mask.causal});
            EXPECT_TRUE(at::equal(part, all.narrow(0, 4, count))) << isa_name(isa) << ", " << s.text() << text(mask);
          }
        }
  }
}

// ---- memory

/// A line of /proc/self/status in MB.
double status_mb(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) / 1024;
  return 0;
}

/// By how much memory grew at its peak while `run` ran, in MB; negative if the system does not say.
template <class F>
double peak_mb(const F& run) {
  malloc_trim(0);  // what earlier tests freed must not be taken from
  std::ofstream clear("/proc/self/clear_refs");
  if (!(clear << 5 << std::flush)) return -1;
  const double before = status_mb("VmRSS");
  run();
  return status_mb("VmHWM") - before;
}

// 64 x 64 latents, 8 heads of 40, batch 2: all scores at once would be 1 GB of float32.
TEST_F(Attention, KeepsNoMatrixOfAllScores) {
  const Shape s{2, 8, 4096, 4096, 40};
  Inputs in(s, at::kBFloat16);
  const auto leaves = in.leaves();
  const Tensor dy = normal(in.q.sizes().vec(), 9).to(at::kBFloat16);
  const double trained = peak_mb([&] { gradients(in.run({}), leaves, dy); });
  if (trained < 0) GTEST_SKIP() << "/proc/self/clear_refs cannot be written";
  const at::NoGradGuard no_grad;
  const double forward = peak_mb([&] { in.run({}); });
  fmt::print("attention at 64x64 latents, 8 heads of 40, batch 2, bf16: {:.0f} MB forward, {:.0f} MB with gradients\n", forward, trained);
  EXPECT_LT(forward, 200);
  EXPECT_GT(forward, 1) << "nothing was measured";
  EXPECT_LT(trained, 400);
  EXPECT_GT(trained, 10) << "nothing was measured";
}

}  // namespace
}  // namespace brume::test
