#include "brume/interop/import/ldm_xl.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/tree.h"
#include "brume/interop/import/clip_vocabulary.h"
#include "brume/interop/import/ldm_completion.h"
#include "brume/interop/layouts/conditioning.h"

namespace brume {
namespace {

/// An encoder of a text, of one or two.
struct XlText {
  LdmText shape;
  Value options;
  NamedTensors tensors;
  int64_t vector_width = 0;  ///< 0 = gives no pooled vector
};

XlText read_text(LdmReading& r, const ModuleTensors& encoder, Files& files) {
  XlText text{r.of_tensors([&] { return read_ldm_text(encoder, false); }), {}, {}};
  text.options = text.shape.options(ldm_text_heads(r, text.shape.width));
  text.tensors = r.of_tensors([&] { return ldm_text_tensors(encoder, text.shape); });
  if (encoder.has("model.text_projection")) {  // OpenCLIP's is [width, projection]
    text.vector_width = encoder.size("model.text_projection", 1);
    text.options.set("projection", value_of(text.vector_width));
    text.tensors.push_back({"text_projection.weight", encoder.by_name().at("model.text_projection").t().contiguous()});
  }
  fit_token_rows(text.tensors, files, r.losses);
  return text;
}

/// Returns the numbers of a tensor.
std::vector<double> numbers_of(const LdmReading& r, const at::Tensor& t, const char* name, int64_t count) {
  if (t.numel() != count) r.refuse(fmt::format("tensor '{}' has {}, expected {}", name, counted(t.numel(), "number"), count));
  const at::Tensor wide = t.to(at::kDouble).contiguous();
  return {wide.data_ptr<double>(), wide.data_ptr<double>() + count};
}

/// Returns EDM's levels and preconditioning. A run starts as if its noise lay on an image of unit variance.
XlLevels levels(double sigma_min, double sigma_max, double sigma_data) {
  XlLevels edm;
  edm.noise = plugin_of("edm", {{"sigma_min", sigma_min}, {"sigma_max", sigma_max}, {"rho", 7}, {"start_image_std", 1}});
  edm.parameterization = plugin_of("edm", {{"sigma_data", sigma_data}, {"prediction", "v"}});
  return edm;
}

}  // namespace

std::optional<XlLevels> xl_levels(const LdmReading& r) {
  const auto given = [&](const char* name) { return find(r.source.tensors, name); };
  constexpr double sigma_min = 0.002, sigma_max = 80, sigma_data = 0.5;  // Karras et al. 2022, table 1
  if (const at::Tensor* means = given("edm_mean"), *stds = given("edm_std"); means && stds) {
    XlLevels edm = levels(sigma_min, sigma_max, sigma_data);
    edm.parameterization.set("prediction", value_of("eps"));
    edm.scale = 0.5;
    edm.means = numbers_of(r, *means, "edm_mean", 4), edm.stds = numbers_of(r, *stds, "edm_std", 4);
    return edm;
  }
  if (const at::Tensor* largest = given("edm_vpred.sigma_max")) {
    const at::Tensor* least = given("edm_vpred.sigma_min");
    return levels(least ? numbers_of(r, *least, "edm_vpred.sigma_min", 1)[0] : sigma_min,
                  numbers_of(r, *largest, "edm_vpred.sigma_max", 1)[0], 1);
  }
  return {};
}

void XlLevels::set(Value& network, Value& stage) const {
  network.set("noise_embedding", plugin_of("sinusoidal", {{"input", "quarter_log"}}));
  if (!means.empty()) stage.set("means", value_of(means)), stage.set("stds", value_of(stds));
}

Value XlLevels::sample(const std::vector<Value>& guidance) const {
  return map_of({{"sampler", plugin_of("dpmpp_multistep", {{"order", 2}})},
                 {"spacing", plugin_of("karras", {{"rho", 7}, {"final", "zero"}})},
                 {"steps", 50},
                 {"guidance", guidance}});
}

LdmCondition read_xl_condition(LdmReading& r, const LdmUnet& u) {
  LdmCondition c;
  c.files = ldm_tokenizer(r);
  std::vector<Value> encoders;
  int64_t width = 0, vector_width = 0;
  const NamedTensors all = ldm_xl_text_tensors(r);
  for (int64_t n = 0; n < 2; ++n) {
    const ModuleTensors encoder(all, fmt::format("conditioner.embedders.{}.", n));
    if (encoder.empty()) continue;  // sizes have no weights
    XlText text = read_text(r, encoder, c.files);
    for (const NamedTensor& t : text.tensors) c.tensors.push_back({fmt::format("{}.{}", encoders.size(), t.name), t.tensor});
    encoders.push_back(std::move(text.options));
    width += text.shape.width;
    vector_width = text.vector_width;
  }
  if (encoders.empty())
    r.refuse(
        "lacks the text encoders of SDXL: there is no tensor 'conditioner.embedders.'; text_encoder=FILE completes it with those of "
        "another checkpoint");
  if (vector_width == 0) r.refuse("lacks the projection of the second text encoder, 'conditioner.embedders.1.model.text_projection'");
  if (width != u.context_width)
    r.refuse(fmt::format("the text encoders' tokens have width {}, and the U-Net attends to tokens of {}", width, u.context_width));
  const bool base = encoders.size() == 2;
  const int64_t sizes = base ? 6 : 5, left = u.added_width - vector_width;
  if (left <= 0 || left % (2 * sizes))
    r.refuse(
        fmt::format("its U-Net takes a vector of {}: the pooled vector of {} leaves {} for {}, which must be an even number of "
                    "channels each",
                    u.added_width, vector_width, left, counted(sizes, "size")));
  c.size_channels = left / sizes;
  c.conditioner = xl_words(std::move(encoders), base);
  c.others = {xl_sizes(!base)};
  c.guidance = {plugin_of("cfg", {{"scale", 5}})};
  return c;
}

}  // namespace brume
