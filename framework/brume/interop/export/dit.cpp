// A `dit` as one file of the programs that it comes from: the inverse of interop/import/dit.cpp. The tensors have the same names; the
// table of fixed positions, which brume computes, is stored there: for a patch at row r and column c of width W, with 10000^(-4i / W),
//   sin(c w_i), cos(c w_i), sin(r w_i), cos(r w_i),   i = 0 ... W/4 - 1
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/yaml.h"
#include "brume/interop/export/export.h"
#include "brume/interop/export/partial.h"
#include "brume/interop/layouts/sections.h"
#include "brume/weights/model_weights.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

/// Returns [1, side side, width].
at::Tensor positions(int64_t side, int64_t width, double scale) {
  const at::Tensor table = at::empty({1, side * side, width}, at::TensorOptions().dtype(at::kFloat));
  float* values = table.data_ptr<float>();
  const int64_t quarter = width / 4;
  for (int64_t token = 0; token < side * side; ++token, values += width)
    for (int64_t i = 0; i < quarter; ++i) {
      const double rate = std::pow(10000.0, -double(i) / double(quarter)) / scale;
      const double column = double(token % side) * rate, row = double(token / side) * rate;
      values[i] = float(std::sin(column)), values[quarter + i] = float(std::cos(column));
      values[2 * quarter + i] = float(std::sin(row)), values[3 * quarter + i] = float(std::cos(row));
    }
  return table;
}

struct DitExport {
  const Contents& model;
  const std::string& source;
  Value options = model.metadata.required("model", source);
  Value network = part_of(options, "network"), labels = part_of(options, "conditioner");
  NamedTensors tensors = below(model.tensors, "network.");

  [[noreturn]] void refuse(const std::string& what) const { throw ConfigError(fmt::format("{}: {}", source, what)); }
  const at::Tensor& get(const char* name, int64_t dims) const {
    const at::Tensor* t = find(tensors, name);
    if (!t || t->dim() != dims) refuse(fmt::format("has no tensor 'network.{}' of {}", name, counted(dims, "dimension")));
    return *t;
  }
  bool words() const { return find(tensors, "y_embedder.y_proj.fc1.weight") != nullptr; }
  bool flow() const { return text_of(part_of(options, "noise"), "type") == "flow"; }

  void check() const {
    if (text_of(network, "type") != "dit")
      refuse(fmt::format("its network is '{}'; the file of a DiT is made of a dit", text_of(network, "type")));
    for (const auto& [key, wanted] :
         {std::pair("rotary", "false"), {"long_skips", "false"}, {"tokens", "cross_attention"}, {"slices", "1"}, {"patch_height", "null"}})
      if (const std::string have = text_of(network, key); !have.empty() && have != wanted)
        refuse(fmt::format("network.{} is {}; the file of a DiT has {}", key, have, wanted));
    const Value level = part_of(network, "noise_embedding");
    if ((!text_of(level, "type").empty() && text_of(level, "type") != "sinusoidal") || integer_of(level, "shift") != 0)
      refuse("network.noise_embedding is not DiT's: sinusoidal, shift 0");
    const Value image = part_of(options, "image");
    if (text_of(image, "height") != text_of(image, "width")) refuse("its images are no squares, which the positions of a DiT are of");
    const std::string predicted = text_of(part_of(options, "parameterization"), "type");
    if (predicted != (flow() ? "flow" : "eps"))
      refuse(fmt::format("its parameterization is '{}'; DiT predicts eps, and SiT the flow", predicted));
  }

  int64_t side() const {
    const Value stage = part_of(options, "autoencoder");
    const auto halvings = int64_t(list_of(stage, "multipliers").size());
    return (integer_of(part_of(options, "image"), "height") >> std::max<int64_t>(0, halvings - 1)) / integer_of(network, "patch");
  }

  /// Returns what the weights do not tell, by the names of the programs.
  Value flags() const {
    Value all = Value::map();
    const auto set = [&](const char* key, const std::string& text) { all.set(key, Value::text(text)); };
    set("num_heads", text_of(network, "heads"));
    if (const std::string ratio = text_of(network, "mlp_ratio"); !ratio.empty()) set("mlp_ratio", ratio);
    if (words()) {
      const Value* of = labels.find("of");  // with the sizes of images
      const Value& t5 = of && !of->items.empty() ? of->items.front() : labels;
      if (const std::string length = text_of(t5, "length"); !length.empty()) set("model_max_length", length);
      return all;
    }
    set("program", flow() ? "sit" : "dit");
    const at::Tensor* rows = find(tensors, "y_embedder.embedding_table.weight");
    if (!rows) return all;
    const double dropout = text_of(labels, "dropout").empty() ? 0.1 : number_of(labels, "dropout");
    set("num_classes", std::to_string(rows->size(0) - (dropout > 0)));
    set("class_dropout_prob", fmt::format("{}", dropout));
    return all;
  }
};

}  // namespace

std::vector<std::string> export_dit(const Contents& model, const std::string& source, const fs::path& file) {
  if (!model.metadata.has("model")) throw ConfigError(fmt::format("{}: is no diffusion model; the file of a DiT is made of a dit", source));
  const DitExport e{model, source};
  e.check();
  NamedTensors all = e.tensors;
  if (!find(all, "pos_embed")) {
    if (text_of(e.network, "positions") == "none") e.refuse("network.positions is none; the file of a DiT has a table of them");
    const double scale = number_of(e.network, "position_scale");
    all.push_back({"pos_embed", positions(e.side(), e.get("x_embedder.proj.weight", 4).size(0), scale > 0 ? scale : 1)});
  }
  const fs::path yaml = fs::path(file).replace_extension(".yaml");
  Partial out({{"weights.safetensors", file}, {"weights.yaml", yaml}});
  out.tensors("weights.safetensors", all);
  out.file("weights.yaml", dump_yaml(e.flags()));
  out.commit();
  std::vector<std::string> notes;
  for (const auto& [prefix, what] : {std::pair("autoencoder.", "the first stage"), {"conditioner.", "the text encoder"}})
    if (!below(model.tensors, prefix).empty()) notes.push_back(fmt::format("{}, which no file of a DiT has", what));
  return notes;
}

}  // namespace brume
