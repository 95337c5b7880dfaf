// Attention by tiles against the plain loops, head by head, on emulated tiles; so its logic is tested without AMX. With
// is, attention_test.cpp runs it on the processor's own as well.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "brume/nn/ops/isa.h"
#include "nn/emulated_tiles.h"

namespace brume::test {
namespace {

using at::Tensor;
using nn::kernels::AttentionHead;

struct Case {
  int64_t queries, keys, width;
  bool padded = false;
  int64_t position = -1;
  double spread = 1;  ///< of the scores
  std::string text() const {
    return fmt::format("{} queries, {} keys, width {}{}, position {}, spread {}", queries, keys, width, padded ? ", padded" : "", position,
                       spread);
  }
};

struct Head {
  Tensor q, k, v, seen;
  explicit Head(const Case& c) {
    const auto normal = [](int64_t rows, int64_t width, uint64_t seed) {
      return at::randn({rows, width}, at::detail::createCPUGenerator(seed), at::kFloat);
    };
    q = (normal(c.queries, c.width, 1) * c.spread).to(at::kBFloat16), k = normal(c.keys, c.width, 2).to(at::kBFloat16);
    v = (normal(c.keys, c.width, 3) + 1).to(at::kBFloat16);
    if (!c.padded) return;
    seen = at::ones({c.keys});
    seen.narrow(0, 0, 1).zero_();
    seen.narrow(0, c.keys / 2, c.keys / 3).zero_();
  }

  template <class F>
  Tensor run(const Case& c, const F& attend) const {
    // Rows further apart than they are wide, as those of heads are.
    const auto apart = [&](const Tensor& t) {
      const Tensor wide = at::full({t.size(0), t.size(1) + 3}, NAN, t.options());
      wide.narrow(1, 0, t.size(1)).copy_(t);
      return wide;
    };
    const Tensor q_ = apart(q), k_ = apart(k), v_ = apart(v), out = at::full({c.queries, c.width + 5}, 7, q.options());
    const Tensor scratch = at::full({nn::kernels::attention_scratch(c.keys, c.width)}, NAN, at::kFloat);
    const AttentionHead head{{q_.data_ptr(), c.width + 3},
                             {k_.data_ptr(), c.width + 3},
                             {v_.data_ptr(), c.width + 3},
                             out.data_ptr(),
                             c.width + 5,
                             c.queries,
                             c.keys,
                             c.width,
                             float(1 / std::sqrt(double(c.width))),
                             seen.defined() ? seen.data_ptr<float>() : nullptr,
                             c.position,
                             scratch.data_ptr<float>()};
    attend(head);
    EXPECT_TRUE((out.narrow(1, c.width, 5) == 7).all().item<bool>()) << "wrote outside its rows: " << c.text();
    return out.narrow(1, 0, c.width).to(at::kFloat);
  }
  Tensor plain(const Case& c) const {
    return run(c, [](const AttentionHead& head) { nn::kernels::attention_generic(head, true); });
  }
  Tensor tiles(const Case& c) const {
    return run(c, [](const AttentionHead& head) { EXPECT_TRUE(attention_on_emulated_tiles(head)); });
  }
};

class AttentionTiles : public testing::Test {
 protected:
  void SetUp() override {
    if (!nn::isa_supported(nn::Isa::avx512_bf16)) GTEST_SKIP() << "the processor has no AVX512-BF16, which goes with tiles";
  }
};

TEST_F(AttentionTiles, AreThePlainLoops) {
  std::vector<Case> cases = {{1, 1, 1}, {256, 1, 8}, {3, 700, 512}, {256, 256, 160}};
  for (const int64_t width : {7, 16, 31, 32, 33, 40, 64, 80, 96}) cases.push_back({70, 333, width});
  for (const int64_t keys : {2, 31, 32, 33, 63, 64, 65, 77, 255, 256, 257, 600}) cases.push_back({33, keys, 40});
  for (const double spread : {0.01, 10.0, 200.0}) cases.push_back({64, 300, 40, false, -1, spread});
  for (const int64_t position : {0, 5, 290})
    for (const bool padded : {false, true}) cases.push_back({100, 333, 40, padded, position});
  cases.push_back({64, 333, 40, true});
  for (const Case& c : cases) {
    const Head head(c);
    const Tensor wanted = head.plain(c), got = head.tiles(c);
    // 2^-8 of a result that was rounded down, and of the weights, which the sum of them shares
    EXPECT_LE((got - wanted).abs().max().item<double>() / wanted.abs().max().item<double>(), 8e-3) << c.text();
  }
}

TEST_F(AttentionTiles, AQueryThatSeesNoKeyGetsTheMean) {
  const Case c{40, 100, 24, true, 0};  // the first key is padding, so the first query sees none
  const Head head(c);
  const Tensor mean = head.v.to(at::kFloat).mean(0);
  EXPECT_LE((head.tiles(c)[0] - mean).abs().max().item<double>(), 8e-3);
}

TEST_F(AttentionTiles, LeaveWhatIsNoNumberToOthers) {
  const Case c{40, 300, 24};
  for (const double value : {NAN, INFINITY})
    for (const bool key : {false, true}) {
      const Head head(c);
      (key ? head.k : head.q)[key ? 290 : 30][23] = value;
      head.run(c, [](const AttentionHead& h) { EXPECT_FALSE(attention_on_emulated_tiles(h)); });
    }
  const Head head(c);
  head.v[290][3] = NAN;  // goes through
  EXPECT_TRUE(head.tiles(c).select(1, 3).isnan().all().item<bool>());
}

}  // namespace
}  // namespace brume::test
