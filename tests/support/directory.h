#pragma once
// A small model of brume, exported as a directory of diffusers without brume's own note, to be changed as programs and people change them.
#include <functional>
#include <nlohmann/json.hpp>

#include "brume/interop/export/export.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"
#include "support/foreign_models.h"
#include "support/process.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace fs = std::filesystem;
namespace pickle = files::pickle;
using nlohmann::json;

inline const std::string unet = "unet/diffusion_pytorch_model", vae = "vae/diffusion_pytorch_model", text = "text_encoder/model";

/// The bytes of torch.save of a state dict: one storage that all tensors are parts of. `legacy`: as before PyTorch 1.6.
inline std::string torch_file(const NamedTensors& tensors, bool legacy) {
  const at::ScalarType type = tensors.front().tensor.scalar_type();
  std::string data;
  std::vector<std::pair<std::string, std::string>> items;
  int32_t total = 0;
  for (const NamedTensor& t : tensors) total += int32_t(t.tensor.numel());
  const std::string storage = pickle::storage(type == at::kHalf ? "HalfStorage" : "FloatStorage", "0", total);
  for (const NamedTensor& t : tensors) {
    const Tensor whole = t.tensor.to(type).contiguous();
    const auto narrow = [](at::IntArrayRef values) { return std::vector<int32_t>(values.begin(), values.end()); };
    items.emplace_back(
        t.name, pickle::tensor(storage, int32_t(data.size() / whole.element_size()), narrow(whole.sizes()), narrow(whole.strides())));
    data.append(static_cast<const char*>(whole.data_ptr()), whole.nbytes());
  }
  const std::string all = pickle::whole(pickle::dict(items));
  if (legacy) return files::legacy_torch_bytes(all, {{"0", total, data}});
  return files::torch_bytes(all, {data});
}

class Directory : public testing::Test {
 protected:
  void make(const std::string& model) {
    const std::string file = model_file(folder, model);
    brume = open_model(file);
    export_diffusers(brume, file, folder.path() / "model");
    fs::remove(folder.path() / "model/brume.yaml");
  }
  /// Stable Diffusion, but small. `others`: its other conditioners, as YAML; `more`: options of clip_text.
  void words(const std::string& others = "", const std::string& more = "") {
    for (const auto& [path, bytes] : small_tokenizers()) folder.file(path, bytes);
    const std::string clip =
        "{type: clip_text, tokenizer: " + folder.file("clip") + ", width: 32, depth: 2, heads: 4, mlp: 64, trainable: true" + more + "}";
    make(
        "{image: {height: 32, width: 32}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [16], "
        "heads: 4, attention_order: new, zero_init: false, transformer: {depth: [1]}}, autoencoder: {type: kl, channels: 32, multipliers: "
        "[1, 2], blocks: 1, attention_resolutions: [16], latent_channels: 4, scale: 0.5}, noise: scaled_linear, conditioner: " +
        (others.empty() ? clip : "{type: composite, of: [" + clip + ", " + others + "]}") + "}");
  }
  std::string path(const std::string& name) const { return folder.file("model/" + name); }
  void rename(const std::string& from, const std::string& to) const { fs::rename(path(from), path(to)); }
  NamedTensors tensors(const std::string& file) const {  // copies: the file may be written again
    NamedTensors all = load_tensors(path(file));
    for (NamedTensor& t : all) t.tensor = t.tensor.clone();
    return all;
  }
  void write(const std::string& file, const NamedTensors& all) const {
    fs::remove(path(file));
    write_safetensors(path(file), all);
  }
  /// A component's weights as torch.save writes them.
  void as_bin(const std::string& from, const std::string& to, bool legacy = false) const {
    folder.file("model/" + to, torch_file(tensors(from), legacy));
    fs::remove(path(from));
  }
  /// In two shards, every other tensor in the second, and their index.
  NamedTensors as_shards(const std::string& stem, const std::string& ending, const std::string& index) const {
    const NamedTensors all = tensors(stem + ".safetensors");
    NamedTensors parts[2];
    json map;
    const std::string name = fs::path(stem).filename().string(), folder_of = fs::path(stem).parent_path().string() + "/";
    const auto shard = [&](size_t i) { return name + "-0000" + std::to_string(i + 1) + "-of-00002" + ending; };
    for (size_t i = 0; i < all.size(); ++i) parts[i % 2].push_back(all[i]), map[all[i].name] = shard(i % 2);
    for (size_t i = 0; i < 2; ++i) {
      if (ending.ends_with(".bin"))
        folder.file("model/" + folder_of + shard(i), torch_file(parts[i], false));
      else
        write_safetensors(path(folder_of + shard(i)), parts[i]);
    }
    folder.file("model/" + folder_of + index, json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
    fs::remove(path(stem + ".safetensors"));
    return all;
  }
  void change(const std::string& file, const std::function<void(json&)>& edit) const {
    json values = json::parse(read_text(path(file)));
    edit(values);
    folder.file("model/" + file, values.dump());
  }
  Imported import(const std::map<std::string, std::string>& settings = {}) const {
    return import_model(folder.path() / "model", {settings, {}});
  }
  /// All of the model's tensors, and no others.
  void expect_all(const std::map<std::string, std::string>& settings = {}) const {
    Contents wanted = brume;
    const auto file = [](const NamedTensor& t) { return t.name.starts_with("files/"); };
    wanted.tensors.erase(std::remove_if(wanted.tensors.begin(), wanted.tensors.end(), file), wanted.tensors.end());
    expect_same({import(settings).tensors, {}}, wanted, false);
  }
  std::string refusal(const std::map<std::string, std::string>& settings = {}) const {
    return without(error_of([&] { import(settings); }), folder);
  }
  TempFolder folder;
  Contents brume;
};

}  // namespace brume::test
