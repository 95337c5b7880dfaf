// Parity of the U-Net with guided-diffusion's UNetModel: its state dict loads by name and gives its output
// (shared/refs/net/gd_unet_adagn_class), and improved-diffusion's and ADM's configurations have their weights' names and shapes.
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "brume/core/network.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/weights/weights_file.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string adagn = "net/gd_unet_adagn_class";

/// The options of UNetModel in brume's words. guided-diffusion gives attention by the factor of downsampling, brume by height.
std::string unet_yaml(const json& arch) {
  std::vector<int64_t> heights;
  for (const int64_t factor : arch["attention_resolutions"]) heights.push_back(arch["image_size"].get<int64_t>() / factor);
  const bool residual = arch.value("resblock_updown", false), conv = arch.value("conv_resample", true);
  const int64_t head_channels = arch.value("num_head_channels", int64_t(-1)), heads_up = arch.value("num_heads_upsample", int64_t(-1));
  return fmt::format(
      "type: unet\nchannels: {}\nmultipliers: [{}]\nblocks: {}\nattention_resolutions: [{}]\nheads: {}\ndecoder_heads: {}\nhead_channels: "
      "{}\n"
      "attention_order: {}\nscale_shift: {}\nresampling: {}\ndropout: {}\n",
      arch["model_channels"].get<int64_t>(), fmt::join(arch["channel_mult"].get<std::vector<double>>(), ", "),
      arch["num_res_blocks"].get<int64_t>(), fmt::join(heights, ", "), arch.value("num_heads", 1),
      heads_up > 0 ? std::to_string(heads_up) : "null", head_channels > 0 ? std::to_string(head_channels) : "null",
      arch.value("use_new_attention_order", false) ? "new" : "legacy", arch.value("use_scale_shift_norm", false),
      residual ? "residual"
      : conv   ? "conv"
               : "pool",
      arch.value("dropout", 0.0));
}

std::shared_ptr<Network> unet(const json& arch) {
  const int64_t size = arch["image_size"];
  return make<Network>(unet_yaml(arch), {.input = {arch["in_channels"], size, size},
                                         .out_channels = arch["out_channels"],
                                         .classes = arch["num_classes"].is_null() ? 0 : arch["num_classes"].get<int64_t>()});
}

std::string shape_of(const Tensor& t) { return fmt::format("{}", fmt::join(t.sizes(), "x")); }

class AdagnUnet : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(adagn + ".json");
    network = unet(ref_json(adagn + ".json")["arch"]);
    load_weights(ref_path(adagn + ".pt"), network->weights());
    io = load_tensors(ref_path(adagn + "_io.safetensors"));
  }
  void cast(at::ScalarType dtype) {
    for (Weight& w : network->weights()) w.tensor.set_data(w.tensor.to(dtype));
  }
  Tensor output(at::ScalarType dtype) const {
    Condition condition;
    condition.classes = *find(io, "y");
    return network->forward(find(io, "x")->to(dtype), find(io, "t")->to(at::kFloat), condition, nullptr);
  }
  Tensor wanted() const { return find(io, "out.y")->to(at::kDouble); }
  double largest_error(const Tensor& out) const { return (out.to(at::kDouble) - wanted()).abs().max().item<double>(); }
  double relative_error(const Tensor& out) const { return ((out.to(at::kDouble) - wanted()).norm() / wanted().norm()).item<double>(); }

  std::shared_ptr<Network> network;
  NamedTensors io;
};

TEST_F(AdagnUnet, HasTheWeightsOfTheReference) {
  std::map<std::string, std::string> ours, theirs;
  int64_t count = 0;
  for (const Weight& w : network->weights()) ours[w.name] = shape_of(w.tensor), count += w.tensor.numel();
  for (const NamedTensor& t : load_tensors(ref_path(adagn + ".pt"))) theirs[t.name] = shape_of(t.tensor);
  EXPECT_EQ(ours, theirs);
  EXPECT_EQ(count, ref_json(adagn + ".json")["n_params"].get<int64_t>());
}

TEST_F(AdagnUnet, GivesItsOutputInFloat32) {
  const Tensor out = output(at::kFloat);
  const double error = largest_error(out), allowed = 1e-4 * std::max(1.0, wanted().abs().max().item<double>());
  fmt::print("U-Net, float32: largest error {:.2e} of {:.2e} allowed\n", error, allowed);
  EXPECT_LE(error, allowed);
  Closeness closeness;
  closeness.summary(out, ref_json(adagn + ".json")["outputs"]["y"], allowed, "y");
}

// The reference differs between its own float32 and float64 by 7e-6; brume's timestep embedding is float32 in both.
TEST_F(AdagnUnet, GivesItsOutputInFloat64) {
  cast(at::kDouble);
  const double error = largest_error(output(at::kDouble));
  fmt::print("U-Net, float64: largest error {:.2e}\n", error);
  EXPECT_LE(error, 3e-5);
}

// bf16 has 8 bits: 2^-9 = 0.2 % a rounding, which some 60 layers add up to 2 % (measured: the line printed).
TEST_F(AdagnUnet, GivesItsOutputInBf16) {
  const Tensor out = output(at::kBFloat16);
  const double from_float32 = relative_error(out);
  cast(at::kBFloat16);
  const double from_bf16 = relative_error(output(at::kBFloat16));
  fmt::print("U-Net, bf16: relative L2 error {:.4f} with float32 weights, {:.4f} with bf16 weights\n", from_float32, from_bf16);
  EXPECT_EQ(out.scalar_type(), at::kBFloat16);
  EXPECT_LE(from_float32, 0.03);
  EXPECT_LE(from_bf16, 0.03);
  EXPECT_GE(from_float32, 1e-4) << "this was not bf16";
}

TEST_F(AdagnUnet, MindsTheClassAndTheTime) {
  const Tensor out = output(at::kFloat);
  NamedTensors changed = io;
  for (NamedTensor& t : changed)
    if (t.name == "y") t.tensor = (t.tensor + 1) % 10;
  std::swap(io, changed);
  EXPECT_GT(relative_error(output(at::kFloat)), 0.01);
  std::swap(io, changed);
  for (NamedTensor& t : io)
    if (t.name == "t") t.tensor = t.tensor + 100;
  EXPECT_GT(relative_error(output(at::kFloat)), 0.01);
  EXPECT_LE(relative_error(out), 1e-4);
}

/// The state dict of improved-diffusion's UNetModel, as its source builds it, in the order of building.
class PublishedUnet {
 public:
  explicit PublishedUnet(const json& arch) : a_(arch), width_(4 * arch["model_channels"].get<int64_t>()) {
    linear("time_embed.0", arch["model_channels"], width_);
    linear("time_embed.2", width_, width_);
    if (!arch["num_classes"].is_null()) put("label_emb.weight", {arch["num_classes"], width_});
  }
  using Shape = std::vector<int64_t>;
  std::map<std::string, std::string> weights;

  void put(const std::string& name, const Shape& shape) { weights[name] = fmt::format("{}", fmt::join(shape, "x")); }
  void pair(const std::string& name, const Shape& weight) { put(name + ".weight", weight), put(name + ".bias", {weight[0]}); }
  void linear(const std::string& name, int64_t in, int64_t out) { pair(name, {out, in}); }
  void conv(const std::string& name, int64_t in, int64_t out, int64_t kernel = 3) { pair(name, {out, in, kernel, kernel}); }
  void norm(const std::string& name, int64_t channels) { pair(name, {channels}); }
  void resblock(const std::string& name, int64_t in, int64_t out) {
    norm(name + ".in_layers.0", in);
    conv(name + ".in_layers.2", in, out);
    linear(name + ".emb_layers.1", width_, a_["use_scale_shift_norm"].get<bool>() ? 2 * out : out);
    norm(name + ".out_layers.0", out);
    conv(name + ".out_layers.3", out, out);
    if (in != out) conv(name + ".skip_connection", in, out, 1);
  }
  void attention(const std::string& name, int64_t channels) {
    norm(name + ".norm", channels);
    pair(name + ".qkv", {3 * channels, channels, 1});
    pair(name + ".proj_out", {channels, channels, 1});
  }

 private:
  const json& a_;
  int64_t width_;
};

std::map<std::string, std::string> weights_of(const Network& network) {
  std::map<std::string, std::string> found;
  for (const Weight& w : network.weights()) found[w.name] = shape_of(w.tensor);
  return found;
}

// improved-diffusion: additive embedding, strided convolutions between levels, 4 heads in legacy order. Two levels of 32 and 64
// channels, one block each, attention at half the height of 16.
TEST(PublishedUnets, ImprovedDiffusion) {
  const json arch = json::parse(R"({"image_size": 16, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [1, 2], "num_classes": null, "num_heads": 4, "num_heads_upsample": -1, "dropout": 0.3,
    "use_scale_shift_norm": false, "conv_resample": true})");
  PublishedUnet wanted(arch);
  wanted.conv("input_blocks.0.0", 3, 32);
  wanted.resblock("input_blocks.1.0", 32, 32);
  wanted.conv("input_blocks.2.0.op", 32, 32);
  wanted.resblock("input_blocks.3.0", 32, 64);
  wanted.attention("input_blocks.3.1", 64);
  wanted.resblock("middle_block.0", 64, 64);
  wanted.attention("middle_block.1", 64);
  wanted.resblock("middle_block.2", 64, 64);
  wanted.resblock("output_blocks.0.0", 64 + 64, 64);  // the skips: 64, 32 (strided), 32, 32
  wanted.attention("output_blocks.0.1", 64);
  wanted.resblock("output_blocks.1.0", 64 + 32, 64);
  wanted.attention("output_blocks.1.1", 64);
  wanted.conv("output_blocks.1.2.conv", 64, 64);
  wanted.resblock("output_blocks.2.0", 64 + 32, 32);
  wanted.resblock("output_blocks.3.0", 32 + 32, 32);
  wanted.norm("out.0", 32);
  wanted.conv("out.2", 32, 6);
  const auto network = unet(arch);
  EXPECT_EQ(weights_of(*network), wanted.weights);
  const Tensor x = tensor_of(std::vector<double>(3 * 16 * 16, 0.5), {1, 3, 16, 16});
  EXPECT_EQ(shape_of(network->forward(x, tensor_of({7.0}, {1}), {}, nullptr)), "1x6x16x16");
}

// ADM at 512 begins with half the model's channels, which also set the width of the embedding; heads of fixed width, residual
// blocks that resample. The same at 16.
TEST(PublishedUnets, AdmWithAHalfMultiplier) {
  const json arch = json::parse(R"({"image_size": 16, "in_channels": 3, "model_channels": 64, "out_channels": 6, "num_res_blocks": 1,
    "attention_resolutions": [2], "channel_mult": [0.5, 1], "num_classes": 1000, "num_heads": 4, "num_head_channels": 64,
    "use_scale_shift_norm": true, "resblock_updown": true})");
  PublishedUnet wanted(arch);
  wanted.conv("input_blocks.0.0", 3, 32);
  wanted.resblock("input_blocks.1.0", 32, 32);
  wanted.resblock("input_blocks.2.0", 32, 32);
  wanted.resblock("input_blocks.3.0", 32, 64);
  wanted.attention("input_blocks.3.1", 64);
  wanted.resblock("middle_block.0", 64, 64);
  wanted.attention("middle_block.1", 64);
  wanted.resblock("middle_block.2", 64, 64);
  wanted.resblock("output_blocks.0.0", 64 + 64, 64);
  wanted.attention("output_blocks.0.1", 64);
  wanted.resblock("output_blocks.1.0", 64 + 32, 64);
  wanted.attention("output_blocks.1.1", 64);
  wanted.resblock("output_blocks.1.2", 64, 64);
  wanted.resblock("output_blocks.2.0", 64 + 32, 32);
  wanted.resblock("output_blocks.3.0", 32 + 32, 32);
  wanted.norm("out.0", 32);
  wanted.conv("out.2", 32, 6);
  EXPECT_EQ(weights_of(*unet(arch)), wanted.weights);
}

}  // namespace
}  // namespace brume::test
