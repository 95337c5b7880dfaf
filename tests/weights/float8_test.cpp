// Floats of 8 bits in safetensors files: every value of both formats by its definition, and scales.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <cmath>

#include "brume/weights/float8.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

std::vector<float> all_values(const char* dtype) {
  std::vector<uint8_t> bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(uint8_t(i));
  const at::Tensor values = from_float8(bytes.data(), {256}, dtype).to(at::kFloat);
  return {values.data_ptr<float>(), values.data_ptr<float>() + 256};
}

TEST(Float8, ValuesOfE4M3) {
  const std::vector<float> v = all_values("F8_E4M3");
  EXPECT_EQ(v[0x38], 1);
  EXPECT_EQ(v[0x39], 1.125f);
  EXPECT_EQ(v[0x7e], 448) << "the largest";
  EXPECT_EQ(v[0x01], std::ldexp(1.f, -9)) << "the smallest";
  EXPECT_EQ(v[0x08], std::ldexp(1.f, -6)) << "the smallest with a leading 1";
  EXPECT_TRUE(std::isnan(v[0x7f]) && std::isnan(v[0xff]));
  for (size_t i = 1; i < 0x7f; ++i) EXPECT_GT(v[i], v[i - 1]) << i;
  for (size_t i = 0; i < 0x7f; ++i) EXPECT_EQ(v[i + 128], -v[i]) << i;
}

TEST(Float8, ValuesOfE5M2) {
  const std::vector<float> v = all_values("F8_E5M2");
  EXPECT_EQ(v[0x3c], 1);
  EXPECT_EQ(v[0x3d], 1.25f);
  EXPECT_EQ(v[0x7b], 57344) << "the largest";
  EXPECT_EQ(v[0x01], std::ldexp(1.f, -16)) << "the smallest";
  EXPECT_TRUE(std::isinf(v[0x7c]) && v[0xfc] == -v[0x7c]);
  for (const size_t nan : {0x7d, 0x7e, 0x7f}) EXPECT_TRUE(std::isnan(v[nan])) << nan;
  for (size_t i = 1; i <= 0x7c; ++i) EXPECT_GT(v[i], v[i - 1]) << i;
}

std::string file_with(const std::string& more_entries, const std::string& more_data) {
  return safetensors_bytes(R"({"a.weight":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[0,4]})" + more_entries + "}",
                           std::string("\x38\x40\xb8\x30", 4) + more_data);
}

TEST(Float8, AreScaled) {
  const TemporaryFolder folder;
  const at::Tensor plain = at::tensor({1.f, 2.f, -1.f, 0.5f}).view({2, 2});
  const NamedTensors bare = load_tensors(folder.file("bare", file_with("", "")));
  EXPECT_EQ(bare[0].tensor.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(bare[0].tensor.to(at::kFloat), plain));
  const std::string one = R"(,"a.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[4,8]})";
  const std::string rows = R"(,"a.weight_scale":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]})";
  const NamedTensors scaled = load_tensors(folder.file("one", file_with(one, numbers<float>({0.3f}))));
  ASSERT_EQ(scaled.size(), 1u);
  EXPECT_TRUE(at::equal(scaled[0].tensor, plain * at::tensor({0.3f})));
  const NamedTensors by_row = load_tensors(folder.file("rows", file_with(rows, numbers<float>({3, 5}))));
  EXPECT_TRUE(at::equal(by_row[0].tensor, plain * at::tensor({3.f, 5.f}).view({2, 1})));
}

TEST(Float8, WhatProductsOfEightBitsNeedIsLeftOut) {
  const TemporaryFolder folder;
  const std::string more = R"(,"a.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[4,8]})"
                           R"(,"a.scale_input":{"dtype":"F32","shape":[],"data_offsets":[8,12]})"
                           R"(,"a.comfy_quant":{"dtype":"U8","shape":[2],"data_offsets":[12,14]})";
  const NamedTensors tensors = load_tensors(folder.file("x", file_with(more, numbers<float>({2, 7}) + "{}")));
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_TRUE(at::equal(tensors[0].tensor, at::tensor({2.f, 4.f, -2.f, 1.f}).view({2, 2})));
}

TEST(Float8, TheMarkOfAModuleCountsForIt) {
  const TemporaryFolder folder;
  const auto with = [&](const std::string& prefix) {
    return file_with(",\"" + prefix + R"(scaled_fp8":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[4,4]})", "");
  };
  EXPECT_EQ(load_tensors(folder.file("other", with("b."))).size(), 1u);
  EXPECT_EQ(error_of([&] { load_tensors(folder.file("x", with("a."))); }, folder),
            "x: tensor 'a.weight' has 8 bits and no scale ('a.scale_weight'), and the file says that its tensors are scaled (scaled_fp8)");
}

TEST(Float8, WithoutTheirScale) {
  const TemporaryFolder folder;
  const std::string mark = R"(,"scaled_fp8":{"dtype":"F8_E4M3","shape":[0],"data_offsets":[4,4]})";
  EXPECT_EQ(error_of([&] { load_tensors(folder.file("x", file_with(mark, ""))); }, folder),
            "x: tensor 'a.weight' has 8 bits and no scale ('a.scale_weight'), and the file says that its tensors are scaled (scaled_fp8)");
  const std::string wrong = R"(,"a.scale_weight":{"dtype":"F32","shape":[3],"data_offsets":[4,16]})";
  EXPECT_EQ(error_of(
                [&] {
                  load_tensors(folder.file("x", file_with(wrong, numbers<float>({1, 2, 3}))));
                },
                folder),
            "x: tensor 'a.weight' has a scale of 3 numbers; one is expected, or one per row");
}

}  // namespace
}  // namespace brume
