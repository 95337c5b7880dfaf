#include "support/registry.h"

#include <cctype>
#include <map>

#include "brume/config/plugin_loader.h"

namespace brume::test {
namespace {

/// Plugins that are of no use without a value. Everything else must do with its defaults.
const std::map<std::string, std::string> least = {
    {"autoencoder tiny", "{type: tiny, encoder: encoder.safetensors, decoder: decoder.safetensors}"},
    {"conditioner clip_text", "{type: clip_text, tokenizer: clip, width: 16, depth: 2, heads: 2, mlp: 32}"},
    {"conditioner composite",
     "{type: composite, of: [{type: class_label, classes: 3}, {type: text, tokenizer: tokenizer.model, width: 16}]}"},
    {"conditioner joint_text",
     "{type: joint_text, channels: [0], tokens: [1], pooled: [0], of: [{type: clip_text, tokenizer: clip, width: 16, depth: "
     "2, "
     "heads: 2, mlp: 32, clip_skip: 1, final_norm: false, projection: 12}, {type: text, tokenizer: tokenizer.model, width: 24, depth: "
     "2}]}"},
    {"conditioner t5", "{type: t5, tokenizer: tokenizer.model, width: 16, depth: 2, heads: 2, head_width: 8, mlp: 32, length: 24}"},
    {"conditioner text", "{type: text, tokenizer: tokenizer.model, width: 16, depth: 2}"},
    {"dataset arrays", "{type: arrays, path: signals.npz}"},
    {"dataset captioned_folder", "{type: captioned_folder, captions: captions.tsv}"},
    {"dataset mix", "{type: mix, sets: [{data: shapes}]}"},
    {"dataset webdataset", "{type: webdataset, shards: 'train-{000..003}.tar'}"},
    {"dataset idx", "{type: idx, images: train-images-idx3-ubyte.gz}"},
    {"dataset image_folder", "{type: image_folder, path: images}"},
    {"dataset latents", "{type: latents, path: latents}"},
    {"features clip_image", "{type: clip_image, path: clip_image.safetensors, activation: gelu}"},
    {"features dinov2", "{type: dinov2, path: dinov2.safetensors}"},
    {"features classifier", "{type: classifier, path: classifier.safetensors}"},
    {"features inception", "{type: inception, path: inception.safetensors}"},
    {"network edm2_unet",
     "{type: edm2_unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [16], head_channels: 8, logvar_channels: 16}"},
    {"objective consistency_distillation", "{type: consistency_distillation, teacher: teacher.safetensors}"},
    {"objective dmd", "{type: dmd, teacher: teacher.safetensors}"},
    {"objective ladd", "{type: ladd, teacher: teacher.safetensors}"},
    {"objective progressive", "{type: progressive, teacher: teacher.safetensors}"},
    {"objective reflow", "{type: reflow, teacher: teacher.safetensors}"},
    {"perceptual_loss classifier", "{type: classifier, path: classifier.safetensors}"},
    {"perceptual_loss lpips", "{type: lpips, vgg: vgg16.safetensors}"},
    {"spacing explicit", "{type: explicit, times: [900, 500, 100]}"},
};

std::string label_of(const std::string& yaml) {
  std::string label;
  for (const char c : yaml.starts_with("{type: ") ? yaml.substr(7) : yaml) {
    if (std::isalnum(static_cast<unsigned char>(c)))
      label += c;
    else if (!label.empty() && label.back() != '_')
      label += '_';
  }
  while (!label.empty() && label.back() == '_') label.pop_back();
  return label;
}

Specimen specimen(std::string_view kind, const std::string& name) {
  const auto exception = least.find(std::string(kind) + " " + name);
  return {std::string(kind), name, exception == least.end() ? name : exception->second, name};
}

}  // namespace

const Registry& builtins() {
  static const Registry registry = [] {
    Registry r;
    register_builtins(r);
    for (const auto& library : plugin_path_libraries()) load_plugin(r, library);  // to hold a library to the contracts
    return r;
  }();
  return registry;
}

std::vector<Specimen> every_plugin() {
  std::vector<Specimen> all;
  for (const std::string& kind : builtins().kinds())
    for (const std::string& name : builtins().names(kind)) {
      all.push_back(specimen(kind, name));
      all.back().label = kind + "_" + name;
    }
  return all;
}

std::vector<Specimen> specimens(std::string_view kind, const std::vector<std::string>& others) {
  std::vector<Specimen> all;
  for (const std::string& name : builtins().names(kind)) all.push_back(specimen(kind, name));
  for (const std::string& yaml : others) {
    const Value value = parse_yaml(yaml, "specimen");
    all.push_back({std::string(kind), value.is_map() ? value.find("type")->scalar : value.scalar, yaml, label_of(yaml)});
  }
  return all;
}

Value with(const std::string& yaml, const std::string& more) {
  return merge(parse_yaml(yaml, "test.yaml"), parse_yaml("{" + more + "}", "test.yaml"));
}

std::string readable(const testing::TestParamInfo<Specimen>& info) { return info.param.label; }

}  // namespace brume::test
