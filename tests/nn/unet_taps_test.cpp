// Taps of the U-Net: at which block they act, and that they leave every other bit alone.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <map>

#include "brume/core/network.h"
#include "support/registry.h"

namespace brume::test {
namespace {

const std::string base = "type: unet, channels: 16, groups: 8, multipliers: [1, 2], blocks: 1, heads: 2, attention_resolutions: [8]";
const std::vector<std::string> kinds{"{" + base + "}", "{" + base + ", transformer: {}}", "{" + base + ", resampling: residual}"};

Tensor normal(at::IntArrayRef shape, uint64_t seed) {
  at::Generator random = at::detail::createCPUGenerator(seed);
  return at::randn(shape, random, at::TensorOptions().dtype(at::kFloat));
}

class UnetTaps : public testing::TestWithParam<std::string> {
 protected:
  UnetTaps() : network_(make<Network>(GetParam(), Network::Context{.input = {4, 16, 16}, .out_channels = 4})) {
    const at::NoGradGuard no_grad;
    uint64_t seed = 100;
    for (Weight& w : network_->weights()) w.tensor.add_(normal(w.tensor.sizes(), ++seed) * 0.05);  // no layer is zero
  }
  Tensor run(const Taps& taps) const {
    const at::NoGradGuard no_grad;
    return network_->forward(normal({2, 4, 16, 16}, 1), at::full({2}, 3.0f), {}, nullptr, taps);
  }
  /// Returns the output of every block, by name.
  std::map<std::string, Tensor> outputs(Taps taps) const {
    std::map<std::string, Tensor> all;
    for (const std::string& name : network_->tap_points().blocks) {
      const auto inner = taps.blocks.contains(name) ? taps.blocks[name] : Taps::Block();
      taps.blocks[name] = [&all, name, inner](const Tensor& in, const std::function<Tensor()>& compute) {
        EXPECT_FALSE(all.contains(name)) << name << " ran twice";
        return all[name] = inner ? inner(in, compute) : compute();
      };
    }
    all["F"] = run(taps);
    return all;
  }
  std::shared_ptr<Network> network_;
};

TEST_P(UnetTaps, EmptyAndZeroOnesChangeNoBit) {
  const at::NoGradGuard no_grad;
  const Tensor plain = network_->forward(normal({2, 4, 16, 16}, 1), at::full({2}, 3.0f), {}, nullptr);
  EXPECT_TRUE(plain.equal(run({})));
  const std::map<std::string, Tensor> blocks = outputs({});
  EXPECT_TRUE(plain.equal(blocks.at("F"))) << "looking at the blocks changed them";
  EXPECT_EQ(blocks.size(), network_->tap_points().blocks.size() + 1) << "a block was not run";
  Taps zero;
  for (const std::string& name : network_->tap_points().blocks) zero.residuals[name] = at::zeros_like(blocks.at(name));
  for (const std::string& name : network_->tap_points().skip_connections) zero.skip_residuals[name] = at::zeros_like(blocks.at(name));
  EXPECT_TRUE(plain.equal(run(zero)));
}

TEST_P(UnetTaps, AResidualIsAddedToTheBlocksOutput) {
  const std::map<std::string, Tensor> before = outputs({});
  for (const std::string& name : network_->tap_points().blocks) {
    const Tensor residual = normal(before.at(name).sizes(), 5);
    Taps given, by_hand;
    given.residuals[name] = residual;
    by_hand.blocks[name] = [&](const Tensor&, const std::function<Tensor()>& compute) { return compute() + residual; };
    const Tensor out = run(given);
    EXPECT_TRUE(out.equal(run(by_hand))) << name;
    EXPECT_FALSE(out.equal(before.at("F"))) << name;
  }
}

TEST_P(UnetTaps, ASkipResidualReachesTheDecoderAlone) {
  const std::map<std::string, Tensor> before = outputs({});
  const std::vector<std::string> skips = network_->tap_points().skip_connections;
  for (size_t i = 0; i < skips.size(); ++i) {
    Taps taps;
    taps.skip_residuals[skips[i]] = normal(before.at(skips[i]).sizes(), 5);
    const std::map<std::string, Tensor> after = outputs(taps);
    const std::string first_reader = "output_blocks." + std::to_string(skips.size() - 1 - i);
    for (const auto& [name, output] : before) {
      if (name.starts_with("input_blocks.") || name.starts_with("middle_block")) {
        EXPECT_TRUE(output.equal(after.at(name))) << name;
      }
    }
    for (size_t j = 0; j + 1 < skips.size() - i; ++j) {
      const std::string name = "output_blocks." + std::to_string(j);
      EXPECT_TRUE(before.at(name).equal(after.at(name))) << name << " runs before " << first_reader;
    }
    EXPECT_FALSE(before.at(first_reader).equal(after.at(first_reader))) << first_reader;
  }
}

TEST_P(UnetTaps, ReplacedAttentionChangesOnlyFromThereOn) {
  const std::map<std::string, Tensor> before = outputs({});
  const TapPoints points = network_->tap_points();
  ASSERT_FALSE(points.attention.empty());
  for (const std::string& name : points.attention) {
    int calls = 0;
    Taps identity;
    identity.attention[name] = [&](const Tensor& q, const Tensor&, const Tensor& v) {
      ++calls;
      EXPECT_EQ(q.sizes(), v.sizes()) << name;
      return v;
    };
    const std::map<std::string, Tensor> after = outputs(identity);
    EXPECT_EQ(calls, 1) << name;
    bool passed = false;  // blocks are named in the order of the forward pass, a stage before what is within it
    for (const std::string& block : points.blocks) {
      const bool within = name == block || name.starts_with(block + ".");
      passed = passed || within;
      if (!passed || within) {
        EXPECT_EQ(before.at(block).equal(after.at(block)), !within) << block << (within ? " holds " : " runs before ") << name;
      }
    }
    EXPECT_FALSE(before.at("F").equal(after.at("F"))) << name;
  }
}

TEST_P(UnetTaps, ASkippableBlockCanBeSkipped) {
  const Tensor plain = run({});
  for (const std::string& name : network_->tap_points().skippable) {
    Taps skipping;
    skipping.blocks[name] = [](const Tensor& input, const std::function<Tensor()>&) { return input; };
    const Tensor out = run(skipping);
    EXPECT_EQ(out.sizes(), plain.sizes()) << name;
    EXPECT_FALSE(out.equal(plain)) << name;
  }
}

TEST_P(UnetTaps, MistakesAreNamed) {
  Taps unknown;
  unknown.residuals["midle_block"] = at::zeros({1});
  unknown.attention["middle_block.7"] = [](const Tensor&, const Tensor&, const Tensor& v) { return v; };
  const std::string text = error_of([&] { unknown.check(network_->tap_points()); });
  EXPECT_NE(text.find("the network has no block 'midle_block'; did you mean 'middle_block'?"), std::string::npos) << text;
  EXPECT_NE(text.find("the network has no attention 'middle_block.7'"), std::string::npos) << text;
  EXPECT_NE(error_of([&] { unknown.check({}); }).find("the network has no block 'midle_block'; it names none"), std::string::npos);
  Taps small;
  small.residuals["middle_block"] = at::zeros({2, 32, 4, 4});
  EXPECT_EQ(error_of([&] { run(small); }),
            "the residual of block 'middle_block' has shape [2, 32, 4, 4], and the block's output [2, 32, 8, 8]");
}

std::string kind_name(const testing::TestParamInfo<std::string>& info) {
  const std::vector<std::string> names{"plain", "transformer", "residual"};
  return names[info.index];
}
INSTANTIATE_TEST_SUITE_P(Kinds, UnetTaps, testing::ValuesIn(kinds), kind_name);

}  // namespace
}  // namespace brume::test
