// Weights of a model in one of other shapes: classes, input channels, the last layer.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/train/adoption.h"
#include "support/registry.h"

namespace brume::test {
namespace {

Tensor counting(at::IntArrayRef shape, double from = 0) {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  return (at::arange(count, at::TensorOptions().dtype(at::kFloat)) + from).view(shape);
}

const ClassRows ten{10, {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}}, four{4, {"cat", "bird", "dog", "fish"}};

/// What a model of ten classes, with a null class, becomes.
NamedTensors adopted(const AdoptionOptions& options, const NamedTensors& source, const std::vector<Weight>& weights,
                     const Network* network = nullptr) {
  return adopt("x.safetensors", source, weights, options, ten, four, network);
}

const AdoptionOptions classes{.classes = {{"d", "cat"}, {"7", "dog"}}};
const NamedTensors table{{"network.label_emb.weight", counting({11, 3})}};
std::vector<Weight> small_table() { return {{"network.label_emb.weight", at::ones({5, 3}) * -1}}; }

TEST(Adoption, ClassesTakeTheRowsOfOthers) {
  const Tensor rows = adopted(classes, table, small_table())[0].tensor, old = table[0].tensor;
  EXPECT_TRUE(rows[0].equal(old[3]));
  EXPECT_TRUE(rows[2].equal(old[7]));
  EXPECT_TRUE(rows[1].equal(old.narrow(0, 0, 10).mean(0)));
  EXPECT_TRUE(rows[3].equal(rows[1]));
  EXPECT_TRUE(rows[4].equal(old[10])) << "the null class";
}

TEST(Adoption, NewClassesByChoice) {
  AdoptionOptions options = classes;
  options.new_rows = AdoptionOptions::NewRows::zero;
  EXPECT_TRUE(adopted(options, table, small_table())[0].tensor[1].equal(at::zeros({3})));
  options.new_rows = AdoptionOptions::NewRows::random;
  EXPECT_TRUE(adopted(options, table, small_table())[0].tensor[1].equal(at::ones({3}) * -1)) << "as it was drawn";
}

TEST(Adoption, AsManyClassesAreRenumbered) {
  const NamedTensors four_rows{{"network.label_emb.weight", counting({4, 3})}};
  const std::vector<Weight> weights{{"network.label_emb.weight", at::zeros({4, 3})}};
  const Tensor rows = adopt("x", four_rows, weights, {.classes = {{"3", "cat"}}}, {4, {}}, four, nullptr)[0].tensor;
  EXPECT_TRUE(rows[0].equal(four_rows[0].tensor[3]));
}

TEST(Adoption, ColumnsOfClassesKeepWhatTheyAdd) {
  const NamedTensors columns{{"network.map_label.weight", counting({3, 10})}};
  const std::vector<Weight> weights{{"network.map_label.weight", at::zeros({3, 4})}};
  const Network::Context context{.input = {3, 16, 16}, .classes = 4};
  const auto adm = make<Network>("dhariwal_unet", context, "channels: 8"), song = make<Network>("song_unet", context, "channels: 8");
  const Tensor plain = adopted(classes, columns, weights, adm.get())[0].tensor;
  const Tensor scaled = adopted(classes, columns, weights, song.get())[0].tensor;
  EXPECT_TRUE(plain.select(1, 2).equal(columns[0].tensor.select(1, 7)));
  EXPECT_TRUE((scaled * std::sqrt(4.0)).allclose(plain * std::sqrt(10.0))) << "the network multiplies with the root of their number";
  const NamedTensors words{{"conditioner.map_label.weight", columns[0].tensor}};
  EXPECT_TRUE(adopted(classes, words, {{"conditioner.map_label.weight", at::zeros({3, 4})}}, song.get())[0].tensor.equal(plain))
      << "of the network's weights alone";
}

TEST(Adoption, InputChannelsArePaddedWithZeros) {
  const NamedTensors source{{"network.input_blocks.0.0.weight", counting({6, 4, 3, 3}, 1)}};
  const std::vector<Weight> weights{{"network.input_blocks.0.0.weight", at::ones({6, 9, 3, 3})}};
  const Tensor padded = adopted({.input_channels = AdoptionOptions::InputChannels::pad}, source, weights)[0].tensor;
  EXPECT_TRUE(padded.narrow(1, 0, 4).equal(source[0].tensor));
  EXPECT_TRUE(padded.narrow(1, 4, 5).equal(at::zeros({6, 5, 3, 3})));
}

TEST(Adoption, ANewHeadIsDrawn) {
  const NamedTensors source{{"network.out.2.weight", counting({3, 4, 3, 3})}, {"network.out.0.weight", counting({4})}};
  const std::vector<Weight> weights{{"network.out.2.weight", at::ones({6, 4, 3, 3})}, {"network.out.0.weight", at::zeros({4})}};
  const NamedTensors all = adopted({.head = AdoptionOptions::Head::fresh}, source, weights);
  EXPECT_TRUE(all[0].tensor.equal(at::ones({6, 4, 3, 3})));
  EXPECT_TRUE(all[1].tensor.equal(source[1].tensor));
}

TEST(Adoption, WhatHasNoPartnerIsListedWithARule) {
  const NamedTensors source{{"network.label_emb.weight", counting({11, 3})},
                            {"network.in.weight", counting({6, 4, 3, 3})},
                            {"network.old.weight", counting({2})}};
  const std::vector<Weight> weights{{"network.label_emb.weight", at::zeros({5, 3})},
                                    {"network.in.weight", at::zeros({6, 9, 3, 3})},
                                    {"network.new.weight", at::zeros({2, 2})}};
  EXPECT_EQ(
      error_of([&] { adopted({}, source, weights); }),
      "x.safetensors: tensor 'network.label_emb.weight' has shape [11, 3], the model's has [5, 3]; train.adopt.classes says which class "
      "becomes which\n"
      "x.safetensors: tensor 'network.in.weight' has shape [6, 4, 3, 3], the model's has [6, 9, 3, 3]; train.adopt.input_channels: pad "
      "adds channels\n"
      "x.safetensors: lacks the tensor 'network.new.weight' [2, 2]; train.adopt.added: ['network.new.weight'] draws it from the seed\n"
      "x.safetensors: has a tensor 'network.old.weight' [2] that the model does not; train.adopt.left_out: ['network.old.weight'] "
      "leaves it out");
  AdoptionOptions all = classes;
  all.input_channels = AdoptionOptions::InputChannels::pad;
  all.left_out = {"network.old.*"}, all.added = {"network.new.*"};
  EXPECT_EQ(error_of([&] { adopted(all, source, weights); }), "no error");
}

TEST(Adoption, UnknownClassesAndPatterns) {
  EXPECT_EQ(error_of([&] {
              adopted({.classes = {{"3", "cta"}, {"12", "dog"}}}, table, small_table());
            }),
            "train.adopt.classes.12: there is no class '12'; known: a, b, c, d, e, f, g, h, i, j\n"
            "train.adopt.classes.3: there is no class 'cta'; did you mean 'cat'?");
  EXPECT_EQ(error_of([&] {
              adopted({.classes = {{"3", "cat"}, {"4", "cat"}}}, table, small_table());
            }),
            "train.adopt.classes.4: class 'cat' has another class of the source already");
  AdoptionOptions options = classes;
  options.left_out = {"network.lable_emb.*"};
  EXPECT_EQ(error_of([&] { adopted(options, table, small_table()); }),
            "train.adopt.left_out.0: 'network.lable_emb.*' matches no weight; did you mean 'network.label_emb.*'?");
  EXPECT_EQ(error_of([&] {
              adopted(classes, {{"w", counting({2})}}, {{"w", at::zeros({2})}});
            }),
            "x.safetensors: train.adopt.classes: no weight holds rows of classes");
}

}  // namespace
}  // namespace brume::test
