// The transformers of Stable Diffusion 3 and 3.5 (Esser et al. 2024) and of FLUX (Black Forest Labs 2024) in one file, under the names of
// their authors' programs, bare or below "model.diffusion_model.". brume's mmdit has Stability's names. Shapes tell the architecture except
// the rotary axes. Text encoders with their tokenizers and the first stage come from a diffusers directory, pipeline=DIRECTORY.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/tree.h"
#include "brume/interop/import/families.h"
#include "brume/interop/import/flags.h"
#include "brume/interop/import/mmdit_parts.h"
#include "brume/interop/layouts/name_table.h"

namespace brume {
namespace {

const std::vector<std::string> flag_names{"pipeline", "variant", "max_sequence_length", "num_heads", "axes_dim", "sample_size"};

constexpr std::string_view prefix = "model.diffusion_model.";

/// The tensors of the network under their names within it, and the names of all others.
struct Parts {
  NamedTensors network;
  std::vector<std::string> others;
};

Parts parts_of(const Source& source) {
  const bool below =
      std::any_of(source.tensors.begin(), source.tensors.end(), [](const NamedTensor& t) { return t.name.starts_with(prefix); });
  Parts parts;
  for (const NamedTensor& t : source.tensors) {
    if (!below)
      parts.network.push_back(t);
    else if (t.name.starts_with(prefix))
      parts.network.push_back({t.name.substr(prefix.size()), t.tensor});
    else
      parts.others.push_back(t.name);
  }
  return parts;
}

class Shapes {
 public:
  Shapes(const NamedTensors& tensors, std::string file) : tensors_(tensors), file_(std::move(file)) {}
  bool has(const std::string& name) const { return find(tensors_, name) != nullptr; }
  int64_t size(const std::string& name, int64_t dim) const {
    const at::Tensor* t = find(tensors_, name);
    if (!t || t->dim() <= dim || t->numel() == 0)
      throw ConfigError(fmt::format("{}: has no tensor '{}' of at least {}", file_, name, counted(dim + 1, "dimension")));
    return t->size(dim);
  }
  int64_t count(const std::string& before, const std::string& after) const {
    int64_t n = 0;
    while (has(fmt::format("{}{}{}", before, n, after))) ++n;
    return n;
  }
  const std::string& file() const { return file_; }

 private:
  const NamedTensors& tensors_;
  std::string file_;
};

MmditNetwork read_sd3(const Shapes& s, const Flags& flags) {
  MmditNetwork n;
  const std::string first = "joint_blocks.0.x_block.";
  n.width = s.size("x_embedder.proj.weight", 0), n.in = s.size("x_embedder.proj.weight", 1), n.patch = s.size("x_embedder.proj.weight", 2);
  n.depth = s.count("joint_blocks.", ".x_block.attn.qkv.weight");
  n.qk_norm = s.has(first + "attn.ln_q.weight");
  n.heads = flags.integer("num_heads").value_or(n.qk_norm ? n.width / s.size(first + "attn.ln_q.weight", 0) : n.width / 64);
  n.mlp_ratio = double(s.size(first + "mlp.fc1.weight", 0)) / double(n.width);
  n.words = s.size("context_embedder.weight", 1), n.pooled = s.size("y_embedder.mlp.0.weight", 1);
  n.out = s.size("final_layer.linear.weight", 0) / (n.patch * n.patch);
  n.position_size = std::llround(std::sqrt(double(s.size("pos_embed", 1))));
  n.size = flags.integer("sample_size").value_or(std::min<int64_t>(128, n.position_size * n.patch));
  for (int64_t i = 0; i < n.depth; ++i)
    if (s.has(fmt::format("joint_blocks.{}.x_block.attn2.qkv.weight", i))) n.dual_blocks.push_back(i);
  return n;
}

MmditNetwork read_flux(const Shapes& s, const Flags& flags) {
  MmditNetwork n{.flux = true};
  n.width = s.size("img_in.weight", 0), n.in = s.size("img_in.weight", 1) / (n.patch * n.patch);
  n.out = s.size("final_layer.linear.weight", 0) / (n.patch * n.patch);
  n.depth = s.count("double_blocks.", ".img_attn.qkv.weight"), n.single_depth = s.count("single_blocks.", ".linear1.weight");
  const int64_t head = s.size("double_blocks.0.img_attn.norm.query_norm.scale", 0);
  n.heads = n.width / head, n.qk_norm = true;
  flags.agree("num_heads", flags.integer("num_heads"), n.heads);
  n.mlp_ratio = double(s.size("double_blocks.0.img_mlp.0.weight", 0)) / double(n.width);
  n.words = s.size("txt_in.weight", 1), n.pooled = s.size("vector_in.in_layer.weight", 1);
  n.guidance = s.has("guidance_in.in_layer.weight");
  n.size = flags.integer("sample_size").value_or(128);
  if (const auto given = flags.list("axes_dim"))
    for (const double axis : *given) n.rotary_axes.push_back(int64_t(axis));
  else if (head == 128)
    n.rotary_axes = {16, 56, 56};
  else
    flags.refuse_missing(
        "axes_dim", fmt::format("how the {} of a head turn by three axes is not to be read from the weights", counted(head, "channel")));
  return n;
}

NamedTensors flux_tensors(const NamedTensors& tensors, const MmditNetwork& n, const std::string& file) {
  const NameTable names = flux_names(n.depth, n.single_depth);
  NamedTensors all;
  for (const NamedTensor& t : tensors) {
    const auto ours = names.ours(t.name);
    if (!ours) throw ConfigError(fmt::format("{}: the mmdit of brume has no place for the tensor '{}'", file, t.name));
    all.push_back({*ours, from_flux_layout(*ours, t.tensor, n.patches())});
  }
  return all;
}

bool is_flux(const NamedTensors& tensors) {
  return find(tensors, "double_blocks.0.img_attn.qkv.weight") && find(tensors, "img_in.weight") && find(tensors, "txt_in.weight");
}
bool is_sd3(const NamedTensors& tensors) {
  return find(tensors, "joint_blocks.0.x_block.attn.qkv.weight") && find(tensors, "context_embedder.weight");
}

bool knows(const Source& source) {
  if (source.directory()) return false;
  const NamedTensors network = parts_of(source).network;
  return is_flux(network) || is_sd3(network);
}

Imported import_mmdit(const Source& source, const ImportOptions& import_options) {
  const Flags flags(source, import_options, flag_names);
  const Parts parts = parts_of(source);
  const std::string file = source.path.filename().string();
  const Shapes shapes(parts.network, file);
  const bool flux = is_flux(parts.network);
  const MmditNetwork n = flux ? read_flux(shapes, flags) : read_sd3(shapes, flags);
  if (n.out != n.in)
    throw ConfigError(fmt::format("{}: takes {} and gives {}; as many are expected", file, counted(n.in, "channel"), n.out));
  const MmditSettings settings{.variant = flags.text("variant").value_or(""),
                               .pipeline = flags.text("pipeline").value_or(""),
                               .length = flags.integer("max_sequence_length").value_or(0)};
  Imported model;
  Value options = Value::map();
  add_mmdit_parts(model, options, n, settings.pipeline, settings);
  options.set("network", n.options());
  set_mmdit_sampling(model, options, n, {});
  model.options = section_of(options, source.path.string());
  for (const NamedTensor& t : flux ? flux_tensors(parts.network, n, file) : parts.network)
    model.tensors.push_back({"network." + t.name, t.tensor});
  if (!parts.others.empty())
    model.losses.push_back(fmt::format("{} of the first stage and the text encoders ('{}' first), which come from pipeline=DIRECTORY",
                                       counted(parts.others.size(), "tensor"), parts.others.front()));
  return model;
}

}  // namespace

const Family mmdit_network{"Stable Diffusion 3 or FLUX network", knows, import_mmdit};

}  // namespace brume
