#include "brume/interop/import/taesd.h"
#include "brume/config/number.h"
#include "brume/config/tree.h"

#include <algorithm>

#include "brume/interop/import/families.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view halves[] = {"encoder.", "decoder."};

/// Returns the half under `prefix`, in the published numbering: diffusers' decoder has no layer for the tanh, its first.
NamedTensors half_of(const NamedTensors& both, std::string_view prefix, bool decoder) {
  NamedTensors half;
  for (const NamedTensor& t : both) {
    if (!t.name.starts_with(prefix)) continue;
    std::string name = t.name.substr(prefix.size());
    if (constexpr std::string_view layers = "layers."; name.starts_with(layers)) {
      name.erase(0, layers.size());
      std::string_view rest(name);
      if (const auto number = take_number<int>(rest)) name = std::to_string(*number + (decoder ? 1 : 0)) + std::string(rest);
    }
    half.push_back({name, t.tensor});
  }
  return half;
}

bool convolution(const NamedTensors& tensors, const char* name, int64_t out, int64_t in) {
  const at::Tensor* t = find(tensors, name);
  return t && t->dim() == 4 && (out == 0 || t->size(0) == out) && (in == 0 || t->size(1) == in) && t->size(2) == 3;
}

/// Returns the other half's file, in the same folder: "taef2_encoder.pth" of "taef2_decoder.pth".
fs::path other_file(const fs::path& file, TinyHalf half) {
  const std::string from = half == TinyHalf::encoder ? "encoder" : "decoder", to = half == TinyHalf::encoder ? "decoder" : "encoder";
  std::string name = file.filename().string();
  const size_t at = name.rfind(from);
  if (at == std::string::npos)
    throw ConfigError(fmt::format("{}: is the {} of a tiny autoencoder; its name does not say '{}', so that of its {} is not known",
                                  file.string(), from, from, to));
  const fs::path other = file.parent_path() / name.replace(at, from.size(), to);
  if (!fs::is_regular_file(other))
    throw ConfigError(fmt::format("{}: is the {} of a tiny autoencoder; its {} is looked for in {}, which does not exist", file.string(),
                                  from, to, other.string()));
  return other;
}

bool knows(const Source& source) { return !source.directory() && (tiny_half(source.tensors) || is_tiny_pair(source.tensors)); }

Imported import_tiny(const Source& source, const ImportOptions& options) {
  if (!options.settings.empty())
    throw ConfigError(fmt::format("{}: nothing can be said of tiny autoencoders", options.settings.begin()->first));
  const std::string file = source.path.filename().string();
  std::string encoder = file, decoder = file;
  TinyAutoencoder tiny;
  if (const auto half = tiny_half(source.tensors)) {
    const fs::path other = other_file(source.path, *half);
    const NamedTensors rest = load_tensors(other.string());
    const bool first = *half == TinyHalf::encoder;
    (first ? decoder : encoder) = other.filename().string();
    tiny = first ? tiny_of_halves(source.tensors, rest) : tiny_of_halves(rest, source.tensors);
  } else {
    tiny = tiny_of_pair(source.tensors);
  }
  Imported model;
  model.section = "autoencoder";
  model.options =
      section_of(map_of({{"image", image_of(3, 256, 256)}, {"network", tiny.options(encoder, decoder, 1, 0)}}), source.path.string());
  for (const NamedTensor& t : tiny.tensors) model.tensors.push_back({"autoencoder." + t.name, t.tensor});
  return model;
}

}  // namespace

std::optional<TinyHalf> tiny_half(const NamedTensors& tensors) {
  if (!find(tensors, "3.conv.0.weight")) return {};
  if (convolution(tensors, "0.weight", 0, 3) && convolution(tensors, "14.weight", 0, 0)) return TinyHalf::encoder;
  if (convolution(tensors, "1.weight", 0, 0) && convolution(tensors, "19.weight", 3, 0)) return TinyHalf::decoder;
  return {};
}

bool is_tiny_pair(const NamedTensors& tensors) {
  const bool only = std::all_of(tensors.begin(), tensors.end(),
                                [](const NamedTensor& t) { return t.name.starts_with(halves[0]) || t.name.starts_with(halves[1]); });
  return only && tiny_half(half_of(tensors, halves[0], false)) == TinyHalf::encoder &&
         tiny_half(half_of(tensors, halves[1], true)) == TinyHalf::decoder;
}

TinyAutoencoder tiny_of_halves(const NamedTensors& encoder, const NamedTensors& decoder) {
  if (tiny_half(encoder) != TinyHalf::encoder || tiny_half(decoder) != TinyHalf::decoder)
    throw ConfigError("the two files are not the encoder and the decoder of one tiny autoencoder");
  TinyAutoencoder tiny;
  tiny.latent_channels = find(encoder, "14.weight")->size(0);
  tiny.width = find(encoder, "0.weight")->size(0);
  tiny.middle_norm = find(decoder, "3.pool.0.weight") != nullptr;
  for (const NamedTensor& t : encoder) tiny.tensors.push_back({"encoder." + t.name, t.tensor});
  for (const NamedTensor& t : decoder) tiny.tensors.push_back({"decoder." + t.name, t.tensor});
  return tiny;
}

TinyAutoencoder tiny_of_pair(const NamedTensors& both) {
  return tiny_of_halves(half_of(both, halves[0], false), half_of(both, halves[1], true));
}

Value TinyAutoencoder::options(const std::string& encoder, const std::string& decoder, double scale, double shift) const {
  return plugin_of("tiny", {{"encoder", Value::text(encoder, true)},
                            {"decoder", Value::text(decoder, true)},
                            {"latent_channels", latent_channels},
                            {"width", width},
                            {"middle_norm", middle_norm},
                            {"scale", scale},
                            {"shift", shift}});
}

void check_diffusers_tiny(const DiffusersConfig& c) {
  c.only<std::string>("act_fn", "relu");
  c.only<int64_t>("in_channels", 3);
  c.only<int64_t>("out_channels", 3);
  c.only<int64_t>("upsampling_scaling_factor", 2);
  c.only<std::vector<int64_t>>("num_encoder_blocks", {1, 3, 3, 3});
  c.only<std::vector<int64_t>>("num_decoder_blocks", {3, 3, 3, 1});
  c.only<std::string>("upsample_fn", "nearest");
}

const Family tiny_autoencoder{"tiny autoencoder (TAESD)", knows, import_tiny};

}  // namespace brume
