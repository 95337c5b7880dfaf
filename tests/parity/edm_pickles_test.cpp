// What the .pkl files of EDM and EDM2 keep of their constructors (preconditioning, sigma_data, balances, filters) against NVlabs' programs
// (references/edm_pickles.py): a pickled network denoises as there, though nothing is set.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "brume/core/network.h"
#include "brume/model.h"
#include "support/file_builders.h"
#include "support/process.h"
#include "support/registry.h"
#include "support/waves.h"

namespace brume::test {
namespace {

using nlohmann::json;
namespace pickle = files::pickle;

std::string number(const json& value) {
  if (value.is_null()) return "N";
  if (value.is_number_integer()) return pickle::integer(value.get<int32_t>());
  if (value.is_number()) {
    const std::string little = files::raw(value.get<double>());
    return "G" + std::string(little.rbegin(), little.rend());
  }
  std::string items = "](";
  for (const json& item : value) items += number(item);
  return items + "e";
}

std::string tensor(const Tensor& t) {
  const auto count = int32_t(t.numel());
  const std::vector<float> values(t.data_ptr<float>(), t.data_ptr<float>() + t.numel());
  const std::string id = pickle::tuple({pickle::text("storage"), pickle::global("torch", "FloatStorage"), pickle::text("7"),
                                        pickle::text("cpu"), pickle::integer(count), "N"}) +
                         "Q";
  const std::string saved = files::legacy_torch_bytes(pickle::whole(id), {{"7", count, files::numbers<float>(values)}});
  const std::string storage =
      pickle::global("torch.storage", "_load_from_bytes") + "B" + files::raw(uint32_t(saved.size())) + saved + "\x85R";
  return pickle::tensor(storage, 0, {t.sizes().begin(), t.sizes().end()}, {t.strides().begin(), t.strides().end()});
}

/// Returns the value of the reference for a tensor.
Tensor value_of(const Weight& w, const std::string& name) {
  int64_t sum = 0;
  for (const char c : name) sum += static_cast<unsigned char>(c);
  const Tensor values = waves(w.tensor.sizes().vec(), 0.2 + double(sum % 101) / 100);
  if (name.find("gain") != name.npos) return at::full(w.tensor.sizes(), 1.0, at::kFloat);
  if (w.tensor.dim() > 1) return values * (2 / std::sqrt(double(w.tensor[0].numel())));
  return values * 0.1 + (name.find("norm") != name.npos && name.ends_with("weight") ? 1 : 0);
}

/// Returns the YAML of a network of the same shape, whose weights have the names of the reference.
std::string shape_of(const json& c) {
  if (c["class"] == "Precond")
    return "{type: edm2_unet, channels: 8, multipliers: [1, 1], blocks: 1, attention_resolutions: [4], head_channels: 4, logvar_channels: "
           "8}";
  const std::string shape = "multipliers: [1, 1], blocks: 1, attention_resolutions: [4], noise_label: edm";
  if (c["class"] == "iDDPMPrecond") return "{type: dhariwal_unet, channels: 64, " + shape + "}";
  const bool fourier = c["class"] == "VEPrecond";
  return "{type: song_unet, channels: 8, " + shape + (fourier ? ", embedding_type: fourier, noise_multiplier: 2}" : "}");
}

std::string pickle_of(const json& c) {
  const bool edm2 = c["class"] == "Precond", wide = c["class"] == "VEPrecond";
  const auto network = make<Network>(shape_of(c), {.input = {3, 8, 8}, .out_channels = c["class"] == "iDDPMPrecond" ? 6 : 3, .classes = 4});
  std::vector<std::pair<std::string, std::string>> parameters, state;
  for (const Weight& w : network->weights()) {
    const std::string name = edm2 ? w.name : "model." + w.name;
    parameters.emplace_back(name, tensor(value_of(w, name).contiguous()));
  }
  const Tensor taps = wide ? at::tensor({1.f, 3.f, 3.f, 1.f}) / 8 : at::tensor({1.f, 1.f}) / 2;
  if (!edm2) parameters.emplace_back("model.enc.4x4_down.conv0.resample_filter", tensor(taps.outer(taps).view({1, 1, taps.size(0), -1})));
  state.emplace_back("_parameters", pickle::dict(parameters));
  for (const auto& [key, value] : c["kept"].items()) state.emplace_back(key, number(value));
  if (edm2)  // of the blocks with attention, from which the width of their heads is known
    state.emplace_back("_modules",
                       pickle::dict({{"block", pickle::dict({{"num_heads", pickle::integer(2)}, {"out_channels", pickle::integer(8)}})}}));
  const std::string ema =
      pickle::global("torch_utils.persistence", "_reconstruct_persistent_obj") +
      pickle::dict(
          {{"type", pickle::text("class")}, {"class_name", pickle::text(c["class"].get<std::string>())}, {"state", pickle::dict(state)}}) +
      "\x85R";
  return pickle::whole(pickle::dict({{"ema", ema}}));
}

TEST(EdmPickles, DenoiseAsTheirPrograms) {
  const at::NoGradGuard no_grad;
  const files::TemporaryFolder folder;
  size_t number = 0;
  for (const json& c : json::parse(read_text(std::string(BRUME_SOURCE_DIR) + "/tests/parity/references/edm_pickles.json"))) {
    SCOPED_TRACE(c["class"].dump() + c["kwargs"].dump());
    OpenOptions options;
    options.precision = "fp32";
    const Model model = Model::open(folder.file("net" + std::to_string(number++) + ".pkl", pickle_of(c)), options);
    std::vector<Tensor> rows;
    for (int64_t i = 0; i < 2; ++i) {
      const double sigma = c["sigma"][size_t(i)];
      const Tensor x = waves({2, 3, 8, 8}, 0.37).narrow(0, i, 1) * (sigma + 0.5);
      rows.push_back(model.denoiser()->denoise(x, sigma, {.classes = at::tensor({i == 0 ? 1 : 3}, at::kLong)}).x0);
    }
    const Tensor out = at::cat(rows, 0).to(at::kDouble);
    const double size = c["size"], tolerance = c["class"] == "iDDPMPrecond" ? 5e-4 : 3e-5;  // its table is a sum in float32
    EXPECT_NEAR(out.sum().item<double>(), c["sum"].get<double>(), tolerance * size);
    EXPECT_NEAR(out.abs().sum().item<double>(), size, tolerance * size);
    for (int64_t j = 0; j < 8; ++j) {
      const double first = c["first"][size_t(j)], sigma = c["sigma"][size_t(j / 4)];  // EDM's times are float32; F counts sigma times
      EXPECT_NEAR(out[j / 4][0][0][j % 4].item<double>(), first, tolerance * (1 + std::abs(first)) * (1 + 3 * sigma)) << j;
    }
  }
}

}  // namespace
}  // namespace brume::test
