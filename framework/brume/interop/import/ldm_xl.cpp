#include "brume/interop/import/ldm_xl.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "brume/config/errors.h"
#include "brume/config/tree.h"
#include "brume/interop/import/clip_vocabulary.h"
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

}  // namespace

LdmCondition read_xl_condition(LdmReading& r, const LdmUnet& u) {
  LdmCondition c;
  c.files = ldm_tokenizer(r);
  std::vector<Value> encoders;
  int64_t width = 0, vector_width = 0;
  for (int64_t n = 0; n < 2; ++n) {
    const ModuleTensors encoder(r.source.tensors, fmt::format("conditioner.embedders.{}.", n));
    if (encoder.empty()) continue;  // sizes have no weights
    XlText text = read_text(r, encoder, c.files);
    for (const NamedTensor& t : text.tensors) c.tensors.push_back({fmt::format("{}.{}", encoders.size(), t.name), t.tensor});
    encoders.push_back(std::move(text.options));
    width += text.shape.width;
    vector_width = text.vector_width;
  }
  if (encoders.empty()) r.refuse("lacks the text encoders of SDXL: there is no tensor 'conditioner.embedders.'");
  if (vector_width == 0) r.refuse("lacks the projection of the second text encoder, 'conditioner.embedders.1.model.text_projection'");
  if (width != u.context_width)
    r.refuse(fmt::format("the text encoders' tokens have width {}, and the U-Net attends to tokens of {}", width, u.context_width));
  const bool base = encoders.size() == 2;
  const int64_t sizes = base ? 6 : 5, left = u.added_width - vector_width;
  if (left <= 0 || left % (2 * sizes))
    r.refuse(
        fmt::format("its U-Net takes a vector of {}: the pooled vector of {} leaves {} for {} sizes, which must be an even number of "
                    "channels each",
                    u.added_width, vector_width, left, sizes));
  c.size_channels = left / sizes;
  c.conditioner = xl_words(std::move(encoders), base);
  c.others = {xl_sizes(!base)};
  c.guidance = {plugin_of("cfg", {{"scale", 5}})};
  return c;
}

}  // namespace brume
