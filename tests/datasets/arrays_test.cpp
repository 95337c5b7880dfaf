// Arrays of numbers: every value arrives, of any rank, and what is wrong with a file is named.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <limits>

#include "brume/core/dataset.h"
#include "brume/core/tensor.h"
#include "brume/weights/npz.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class ArraysOfFiles : public testing::Test {
 protected:
  void SetUp() override {
    const Tensor counted = at::arange(3 * 2 * 4 * 5, at::kFloat);
    write_npz(folder_.file("a.npz"), {{"x", counted.view({3, 2, 4, 5})}, {"kinds", at::arange(3, at::kLong)}});
    write_safetensors(folder_.file("a.safetensors"), {{"x", counted.view({3, 40})}});
    write_npz(folder_.file("bytes.npz"), {{"volumes", at::arange(48, at::kLong).to(at::kByte).view({2, 4, 3, 2})}});
  }
  std::shared_ptr<const Dataset> open(const std::string& options, const ImageShape& shape) const {
    std::string yaml = "{type: arrays, path: " + folder_.path().string() + "/" + options + "}";
    return make<Dataset>(yaml, {.shape = shape});
  }
  static std::vector<float> values(const Dataset& data, int64_t index, const ImageShape& shape) {
    std::vector<float> pixels(size_t(shape.numel()));
    data.read(index, 0, pixels);
    return pixels;
  }
  std::string mistake(const std::string& options, const ImageShape& shape) const {
    return error_of([&] { open(options, shape); });
  }
  TempFolder folder_;
};

TEST_F(ArraysOfFiles, ArriveInTheirOrder) {
  for (const auto& [options, shape] : std::vector<std::pair<std::string, ImageShape>>{
           {"a.npz, array: x, labels: kinds", {2, 4, 5}}, {"a.safetensors", {1, 1, 40}}, {"a.npz, array: x", {1, 8, 5}}}) {
    const auto data = open(options, shape);
    ASSERT_EQ(data->size(), 3);
    const std::vector<float> second = values(*data, 1, shape);
    for (size_t i = 0; i < 40; ++i) EXPECT_EQ(second[i], float(40 + i)) << options;
  }
  const auto labelled = open("a.npz, array: x, labels: kinds", {2, 4, 5});
  EXPECT_EQ(labelled->classes(), (std::vector<std::string>{"0", "1", "2"}));
  std::vector<float> pixels(40);
  EXPECT_EQ(labelled->read(2, 0, pixels).label, 2);
}

TEST_F(ArraysOfFiles, AreScaled) {
  const ImageShape volume{1, 12, 2};  // 4 slices of 3x2
  const auto data = open("bytes.npz, from: 0, to: 255", volume);
  EXPECT_EQ(values(*data, 0, volume)[0], -1);
  EXPECT_FLOAT_EQ(values(*data, 1, volume)[3], 27 / 127.5f - 1);
  const ImageShape channels{4, 3, 2};
  EXPECT_EQ(values(*open("bytes.npz, from: 0, to: 255", channels), 1, channels), values(*data, 1, volume));
}

TEST_F(ArraysOfFiles, MistakesAreNamed) {
  EXPECT_NE(mistake("a.npz", {2, 4, 5}).find("has 2 arrays (x, kinds): name one"), std::string::npos);
  EXPECT_NE(mistake("a.npz, array: y", {2, 4, 5}).find("has no array 'y'"), std::string::npos);
  EXPECT_NE(mistake("a.npz, array: x", {2, 5, 5}).find("array: [3, 2, 4, 5] is no set of 2x5x5"), std::string::npos);
  EXPECT_NE(mistake("a.npz, array: kinds, labels: x", {1, 1, 1}).find("array: [3] is no set of 1x1x1"), std::string::npos);
  EXPECT_NE(mistake("a.npz, array: x, labels: x", {2, 4, 5}).find("labels: [3, 2, 4, 5] are no 3 integers"), std::string::npos);
  EXPECT_NE(mistake("a.npz, array: x, labels: kinds, classes: [a, b]", {2, 4, 5}).find("run from 0 to 2, and there are 2 classes"),
            std::string::npos);
  EXPECT_NE(mistake("absent.npz", {2, 4, 5}).find("absent.npz"), std::string::npos);
  write_npz(folder_.file("nan.npz"), {{"x", at::full({2, 4}, std::numeric_limits<float>::quiet_NaN())}});
  EXPECT_NE(mistake("nan.npz", {1, 1, 4}).find("has values that are not finite"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
