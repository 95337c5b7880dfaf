// GGUF files: what their header says, and the values of quantised blocks (those of ggml's own functions on the same bytes).
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <set>

#include "brume/files/mapped_file.h"
#include "brume/weights/gguf.h"
#include "brume/weights/gguf_blocks.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

std::string text_of(const std::string& s) { return raw<uint64_t>(s.size()) + s; }

struct Part {
  std::string name;
  std::vector<uint64_t> sizes;  ///< as the file has them, the fastest first
  uint32_t type;
  std::string data;
};

std::string gguf_bytes(const std::vector<Part>& parts, const std::string& metadata = "", uint64_t pairs = 0, uint32_t version = 3) {
  std::string head = "GGUF" + raw<uint32_t>(version) + raw<uint64_t>(parts.size()) + raw<uint64_t>(pairs) + metadata, data;
  for (const Part& p : parts) {
    head += text_of(p.name) + raw<uint32_t>(uint32_t(p.sizes.size()));
    for (const uint64_t size : p.sizes) head += raw<uint64_t>(size);
    head += raw<uint32_t>(p.type) + raw<uint64_t>(data.size());
    data += p.data;
    data.resize((data.size() + 31) / 32 * 32);
  }
  head.resize((head.size() + 31) / 32 * 32);
  return head + data;
}

class Gguf : public testing::Test {
 protected:
  std::string error(const std::string& bytes) {
    const auto path = folder.file("x", bytes);
    return error_of([&] { load_tensors(path); }, folder);
  }
  TemporaryFolder folder;
};

TEST_F(Gguf, WholeFloatsAndMetadata) {
  const std::string metadata = text_of("general.architecture") + raw<uint32_t>(8) + text_of("flux") + text_of("n") + raw<uint32_t>(4) +
                               raw<uint32_t>(7) + text_of("list") + raw<uint32_t>(9) + raw<uint32_t>(8) + raw<uint64_t>(2) + text_of("a") +
                               text_of("bc");
  const auto path = folder.file(
      "x", gguf_bytes({{"a", {3, 2}, 0, numbers<float>({0, 1, 2, 3, 4, 5})}, {"h", {2}, 1, std::string("\0\x3c\0\xc0", 4)}}, metadata, 3));
  std::map<std::string, std::string> said;
  const NamedTensors tensors = load_tensors(path, &said);
  EXPECT_EQ(said, (std::map<std::string, std::string>{{"general.architecture", "flux"}, {"n", "7"}}));
  EXPECT_TRUE(at::equal(*find(tensors, "a"), at::tensor({0.f, 1.f, 2.f, 3.f, 4.f, 5.f}).view({2, 3})));
  EXPECT_TRUE(at::equal(find(tensors, "h")->to(at::kFloat), at::tensor({1.f, -2.f})));
  EXPECT_EQ(list_file(path).rows[0].dtype, "F32");
}

/// Two blocks of bytes of a linear congruential generator, with the scales 0.037 and 0.011 in halves.
std::vector<uint8_t> blocks_of(const GgufType& type) {
  std::vector<uint8_t> bytes(2 * type.bytes);
  uint32_t state = 7;
  for (uint8_t& b : bytes) state = (state * 1103515245u + 12345u) & 0x7fffffffu, b = uint8_t(state >> 16);
  const size_t scale = type.name == "Q6_K" ? 208 : type.name == "Q2_K" ? 80 : type.name == "Q3_K" ? 108 : 0;
  const std::set<std::string_view> least{"Q4_K", "Q5_K", "Q2_K", "Q4_1", "Q5_1"};
  for (size_t k = 0; k < 2; ++k) {
    uint8_t* block = bytes.data() + k * type.bytes + scale;
    block[0] = 0xbc, block[1] = 0x28;
    if (least.contains(type.name)) block[2] = 0xa2, block[3] = 0x21;
  }
  return bytes;
}

TEST_F(Gguf, BlocksHaveTheValuesOfGgml) {
  struct Case {
    uint32_t number;
    double sum, magnitude, weighted;
  };
  for (const Case& c : {Case{8, 31.1063232, 152.276733, 1118.71802}, Case{2, -3.62475586, 10.1345215, -87.3640137},
                        Case{12, 3161.1897, 3183.87167, 808462.824}, Case{13, 6420.05176, 6431.03104, 1605686.73},
                        Case{14, -346.682007, 18253.1239, 121802.579},
                        // The next by dequant.py of ComfyUI-GGUF, which gives the values above as well.
                        Case{3, 15.2770996, 15.2770996, 501.572998}, Case{6, -6.62072754, 18.9005127, -233.500854},
                        Case{7, 34.2515869, 34.2515869, 1154.91675}, Case{10, 173.965698, 193.965088, 49325.5714},
                        Case{11, 56.2946777, 612.731689, 14997.7972}, Case{20, -49.0821533, 140.366821, -1197.50098},
                        Case{23, 1402.22571, 18320.8846, 260076.418}}) {
    const GgufType& type = *gguf_type(c.number);
    const std::vector<uint8_t> bytes = blocks_of(type);
    const std::string data(bytes.begin(), bytes.end());
    const NamedTensors tensors = load_tensors(folder.file("x", gguf_bytes({{"w", {type.weights, 2}, c.number, data}})));
    const at::Tensor w = find(tensors, "w")->to(at::kDouble).reshape({-1});
    ASSERT_EQ(w.numel(), int64_t(2 * type.weights)) << type.name;
    double weighted = 0;
    for (int64_t i = 0; i < w.numel(); ++i) weighted += w[i].item<double>() * double(i + 1);
    EXPECT_NEAR(w.sum().item<double>(), c.sum, 1e-6 * c.magnitude) << type.name;
    EXPECT_NEAR(w.abs().sum().item<double>(), c.magnitude, 1e-6 * c.magnitude) << type.name;
    EXPECT_NEAR(weighted, c.weighted, 1e-5 * std::abs(c.weighted)) << type.name;
  }
}

TEST_F(Gguf, TensorsWrittenInRowsOfBlocksHaveTheirOwnShape) {
  const auto with = [&](const std::vector<int32_t>& shape) {
    const std::string key = text_of("comfy.gguf.orig_shape.w") + raw<uint32_t>(9) + raw<uint32_t>(5) + raw<uint64_t>(shape.size());
    return gguf_bytes({{"w", {256, 1}, 0, std::string(1024, '\0')}}, key + numbers<int32_t>(shape), 1);
  };
  const auto path = folder.file("x", with({8, 4, 2, 4}));
  EXPECT_EQ(find(load_tensors(path), "w")->sizes(), at::IntArrayRef({8, 4, 2, 4}));
  EXPECT_EQ(list_file(path).rows[0].shape, (std::vector<int64_t>{8, 4, 2, 4}));
  EXPECT_EQ(error(with({8, 4, 2})), "x: tensor 'w' has 256 weights, and its comfy.gguf.orig_shape.… is [8, 4, 2]");
  EXPECT_EQ(error(with({-256, -1})), "x: tensor 'w' has 256 weights, and its comfy.gguf.orig_shape.… is [-256, -1]");
}

TEST_F(Gguf, SaysWhatIsWrong) {
  const Part part{"a", {4}, 0, numbers<float>({0, 1, 2, 3})};
  const std::string whole = gguf_bytes({part});
  EXPECT_EQ(error(gguf_bytes({part}, "", 0, 1)), "x: is a GGUF file of version 1; 2 and 3 are read");
  EXPECT_EQ(error(whole.substr(0, 40)), "x: is truncated: its header needs 8 bytes at byte 37, 3 are there") << whole.size();
  EXPECT_EQ(error(whole.substr(0, whole.size() - 20)), "x: is truncated: tensor 'a' needs 16 bytes at byte 0 of the data, which has 12");
  EXPECT_EQ(error(gguf_bytes({part, part})), "x: 'a' is there twice");
  EXPECT_EQ(error(gguf_bytes({{"q", {256}, 16, std::string(66, '\0')}})),
            "x: tensor 'q' has the type 16 of ggml, which brume does not read (readable: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, "
            "Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS)");
  EXPECT_EQ(error(gguf_bytes({{"q", {40}, 8, std::string(68, '\0')}})),
            "x: tensor 'q' of type Q8_0 has rows of 40 weights, no multiple of the 32 of a block");
  EXPECT_EQ(error(gguf_bytes({{"q", {1, 1, 1, 1, 1}, 0, std::string(4, '\0')}})), "x: tensor 'q' has 5 dimensions (at most 4)");
}

}  // namespace
}  // namespace brume
