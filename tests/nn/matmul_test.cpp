// Products of matrices in float32: against float64, whatever the order in memory, and the same bits for any rows and threads.
#include "brume/nn/ops/matmul.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "brume/nn/ops/isa.h"

namespace brume::test {
namespace {

/// Sets instruction set and threads back at the end.
class MatmulTest : public testing::Test {
 protected:
  ~MatmulTest() override {
    nn::set_isa(isa_);
    at::set_num_threads(threads_);
  }
  const nn::Isa isa_ = nn::isa();
  const int threads_ = at::get_num_threads();
};

nn::Matrix matrix(const Tensor& t) { return {t.data_ptr<float>(), t.size(0), t.size(1), t.stride(0), t.stride(1)}; }

/// Returns the same matrix, with rows or with columns that follow each other.
Tensor laid(const Tensor& t, bool by_columns) { return by_columns ? t.t().contiguous().t() : t; }

Tensor product(const Tensor& a, const Tensor& b, const Tensor& bias = {}) {
  const Tensor c = at::full({a.size(0), b.size(1)}, 1e30f);
  nn::matmul(matrix(a), matrix(b), bias.defined() ? bias.data_ptr<float>() : nullptr, c.data_ptr<float>());
  return c;
}

TEST_F(MatmulTest, IsTheProductOnEverySetAndInEveryOrder) {
  at::manual_seed(4);
  for (const nn::Isa isa : {nn::Isa::avx2, nn::Isa::avx512}) {
    if (!nn::isa_supported(isa)) continue;
    nn::set_isa(isa);
    ASSERT_TRUE(nn::matmul_fits());
    for (const auto& [m, k, n] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                     {1, 7, 33},
                                                                     {5, 320, 16},
                                                                     {13, 321, 64},
                                                                     {241, 650, 31},
                                                                     {64, 48, 97},
                                                                     {3, 2500, 1100},
                                                                     {500, 5, 130},
                                                                     {2, 1000, 2}})
      for (const int order : {0, 1, 2, 3}) {
        const Tensor a = laid(at::randn({m, k}), order & 1), b = laid(at::randn({k, n}), order & 2), bias = at::randn({n});
        const Tensor exact = a.to(at::kDouble).matmul(b.to(at::kDouble));
        const auto apart = [](const Tensor& x, const Tensor& y) { return (x.to(at::kDouble) - y).abs().max().item<double>(); };
        EXPECT_LT(apart(product(a, b), exact), 2e-6 * double(k + 8)) << m << " " << k << " " << n << " order " << order;
        EXPECT_LT(apart(product(a, b, bias), exact + bias), 2e-6 * double(k + 8)) << m << " " << k << " " << n << " order " << order;
      }
  }
}

TEST_F(MatmulTest, ARowHasTheSameBitsWhateverTheOthersAndTheThreads) {
  if (!nn::matmul_fits()) GTEST_SKIP() << "no kernel on this processor";
  at::manual_seed(5);
  const Tensor a = at::randn({300, 700}), b = at::randn({700, 70});
  const Tensor all = product(a, b);
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    EXPECT_TRUE(product(a, b).equal(all)) << threads << " threads";
    for (const int64_t row : {0, 17, 239, 240, 299}) EXPECT_TRUE(product(a.narrow(0, row, 1), b)[0].equal(all[row])) << row;
  }
}

TEST_F(MatmulTest, ColumnSumsKeepTheirDigits) {
  at::manual_seed(6);
  const Tensor a = at::randn({70000, 67}) + 1;
  const Tensor sums = at::full({67}, 1e30f);
  nn::column_sums(matrix(a), sums.data_ptr<float>());
  EXPECT_LT((sums.to(at::kDouble) - a.to(at::kDouble).sum(0)).abs().max().item<double>(), 0.1);
  const Tensor few = at::full({67}, 1e30f);
  nn::column_sums(matrix(a.narrow(0, 0, 3)), few.data_ptr<float>());
  EXPECT_LT((few - a.narrow(0, 0, 3).sum(0)).abs().max().item<double>(), 1e-5);
}

}  // namespace
}  // namespace brume::test
