// brume export --to ldm: what comes back are the same bits, with either of CLIP's text encoders; all files appear or none.
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "brume/config/yaml.h"
#include "brume/interop/export/export.h"
#include "brume/interop/export/partial.h"
#include "brume/interop/layouts/open_clip.h"
#include "brume/interop/layouts/sections.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/file_builders.h"
#include "support/foreign_models.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

/// Stable Diffusion 2, but small. `network`, `text`, `more`: options in addition to those it has.
class LdmExport : public testing::Test {
 protected:
  LdmExport() {
    for (const auto& [path, bytes] : small_tokenizers()) folder.file(path, bytes);
  }
  void make(const std::string& network = "", const std::string& text = "", const std::string& more = "") {
    source = model_file(
        folder,
        "{image: {height: 32, width: 32}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
        "head_channels: 8, zero_init: false, transformer: {depth: [1], projection: linear}" +
            network +
            "}, autoencoder: {type: kl, channels: 32, multipliers: [1, 2], blocks: 1, latent_channels: 4, scale: 0.5}, noise: "
            "scaled_linear, parameterization: v, conditioner: {type: clip_text, width: 32, depth: 2, heads: 4, mlp: 64, activation: gelu, "
            "pad: 0, trainable: true, tokenizer: " +
            folder.file("clip") + text + "}" + more + "}");
    wanted = open_model(source);
  }
  std::vector<std::string> write(const std::string& name = "out.safetensors") const {
    return export_ldm(wanted, source, folder.path() / "to" / name);
  }
  std::string refusal(const std::string& name = "out.safetensors") const {
    return without(error_of([&] { write(name); }), folder);
  }
  std::vector<std::string> there() const {
    std::vector<std::string> names;
    if (fs::exists(folder.path() / "to"))
      for (const auto& entry : fs::directory_iterator(folder.path() / "to")) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  void change(const std::string& from, const std::string& to) {
    ModelMetadata::Entries entries = wanted.metadata.entries();
    std::string& options = entries.at("brume.model");
    options.replace(options.find(from), from.size(), to);
    wanted.metadata = ModelMetadata(entries);
  }
  TempFolder folder;
  std::string source;
  Contents wanted;
};

/// A model file's contents with every default, as exports take them.
Contents resolved(const Imported& imported) {
  Contents model = contents_of(imported);
  Value section = Value::map();
  section.set("model", imported.options);
  ModelSection root;
  model.metadata.set("model", *read_config(builtins(), section, root).find("model"));
  return model;
}

TEST_F(LdmExport, OpenClipGivesTheSameBits) {
  make();
  EXPECT_EQ(write(), std::vector<std::string>());
  EXPECT_EQ(there(), (std::vector<std::string>{"out.safetensors", "out.yaml", "tokenizer"}));
  const NamedTensors file = load_tensors(folder.file("to/out.safetensors"));
  const std::string layer = "cond_stage_model.model.transformer.resblocks.";
  EXPECT_EQ(find(file, layer + "1.attn.in_proj_weight")->sizes(), at::IntArrayRef({96, 32}));
  EXPECT_EQ(find(file, layer + "2.mlp.c_proj.weight")->count_nonzero().item<int64_t>(), 0) << "the layer that is left out";
  EXPECT_EQ(find(file, layer + "3.ln_1.weight"), nullptr);
  const std::string yaml = read_text(folder.path() / "to/out.yaml");
  for (const char* line : {"modules.FrozenOpenCLIPEmbedder", "layer: penultimate", "parameterization: v", "num_head_channels: 8",
                           "use_linear_in_transformer: True"})
    EXPECT_NE(yaml.find(line), std::string::npos) << line;

  const Imported imported = import_model(folder.path() / "to/out.safetensors");
  fit(imported);
  for (const char* part : {"network.", "conditioner.", "autoencoder."})
    expect_same({below(imported.tensors, part), {}}, {below(wanted.tensors, part), {}}, false);
  const Value said = *imported.options.find("conditioner"), had = *wanted.metadata.required("model", "model").find("conditioner");
  for (const char* key : {"length", "width", "depth", "heads", "mlp", "activation", "pad"})
    EXPECT_EQ(text_of(said, key), text_of(had, key)) << key;
  EXPECT_EQ(imported.losses, std::vector<std::string>{"the last layer of the text encoder, which the model does not use"});
}

TEST_F(LdmExport, QuickGeluGivesTheSameBits) {
  BRUME_NEED_REF("ldm/tiny_ldm.ckpt");
  const Imported imported =
      import_model(ref_path("ldm/tiny_ldm.ckpt"), {{{"tokenizer", ref_path("pipe/tiny_sd/tokenizer").string()}, {"text_heads", "4"}}, {}});
  export_ldm(resolved(imported), "model", folder.path() / "out.safetensors");
  expect_same(open_model(folder.file("out.safetensors")), contents_of(imported), true);
}

TEST_F(LdmExport, SdxlIsItsFileBitForBit) {
  BRUME_NEED_REF("../refs2/sdxl/tiny_sdxl_sgm.safetensors");
  const fs::path source = ref_path("../refs2/sdxl/tiny_sdxl_sgm.safetensors");
  const std::string tokenizer = ref_path("../refs2/sdxl/tiny_sdxl/tokenizer").string();
  export_ldm(resolved(import_model(source, {{{"tokenizer", tokenizer}, {"num_head_channels", "16"}, {"size", "128"}}, {}})), "model",
             folder.path() / "out.safetensors");
  const NamedTensors wanted = load_tensors(source.string()), got = load_tensors(folder.file("out.safetensors"));
  size_t kept = 0;
  for (const NamedTensor& t : wanted) {
    if (t.name.ends_with("position_ids") || t.name.ends_with("logit_scale") || t.name == "denoiser.sigmas") continue;
    const at::Tensor* same = find(got, t.name);
    ASSERT_TRUE(same) << t.name;
    EXPECT_TRUE(same->scalar_type() == t.tensor.scalar_type() && same->equal(t.tensor)) << t.name;
    ++kept;
  }
  EXPECT_EQ(kept, got.size());
  const Imported again = import_model(folder.path() / "out.safetensors");  // its YAML says what the settings said
  fit(again);
  EXPECT_EQ(text_of(*again.options.find("image"), "height"), "128");
}

// The refiner has OpenCLIP's encoder alone, and a score instead of the target size.
TEST_F(LdmExport, SdxlsRefinerIsItsFileBitForBit) {
  BRUME_NEED_REF("../refs2/sdxl/tiny_sdxl_sgm.safetensors");
  const NamedTensors base = load_tensors(ref_path("../refs2/sdxl/tiny_sdxl_sgm.safetensors").string());
  const std::string second = "conditioner.embedders.1.";
  NamedTensors refiner;
  for (const NamedTensor& t : base) {
    if (t.name.starts_with("conditioner.embedders.0.") || t.name == "denoiser.sigmas" || t.name.ends_with("logit_scale")) continue;
    if (t.name.starts_with(second))
      refiner.push_back({"conditioner.embedders.0." + t.name.substr(second.size()), t.tensor});
    else if (t.name.ends_with("attn2.to_k.weight") || t.name.ends_with("attn2.to_v.weight"))
      refiner.push_back({t.name, t.tensor.narrow(1, 0, 128).contiguous()});
    else if (t.name == "model.diffusion_model.label_emb.0.0.weight")
      refiner.push_back({t.name, t.tensor.narrow(1, 0, 40 + 5 * 16).contiguous()});
    else
      refiner.push_back(t);
  }
  write_safetensors(folder.file("refiner.safetensors"), refiner);
  const std::string tokenizer = ref_path("../refs2/sdxl/tiny_sdxl/tokenizer").string();
  export_ldm(resolved(import_model(folder.file("refiner.safetensors"),
                                   {{{"tokenizer", tokenizer}, {"num_head_channels", "16"}, {"size", "128"}}, {}})),
             "model", folder.path() / "out.safetensors");
  expect_same({load_tensors(folder.file("out.safetensors")), {}}, {refiner, {}}, false);
}

TEST_F(LdmExport, SaysWhatItCannotHold) {
  const auto refused = [&](const std::string& network, const std::string& text, const std::string& more) {
    make(network, text, more);
    const std::string said = refusal();
    EXPECT_EQ(there(), std::vector<std::string>()) << said;
    return said;
  };
  EXPECT_EQ(refused("", ", clip_skip: 1", ""), "model.safetensors: conditioner.clip_skip is 1; latent diffusion's is 0");
  EXPECT_EQ(refused(", norm_eps: 1.0e-06", "", ""), "model.safetensors: network.norm_eps is 1e-06; latent diffusion's is 1e-05");
  EXPECT_EQ(refused(", downsample_padding: below", "", ""),
            "model.safetensors: network.downsample_padding is below; latent diffusion's is around");
  EXPECT_EQ(refused(", noise_embedding: {type: sinusoidal, sin_first: true}", "", ""),
            "model.safetensors: network.noise_embedding.sin_first is true; latent diffusion's is false");
  EXPECT_EQ(refused("", "", ", variance: learned_range"), "model.safetensors: model.variance is learned_range; latent diffusion's is none");
}

TEST_F(LdmExport, PaddingIsThatOfTheEncoder) {
  make();
  change("pad: 0", "pad: 3");
  EXPECT_EQ(refusal(), "model.safetensors: conditioner.pad is 3; latent diffusion's is 0");
  change("activation: gelu", "activation: quick_gelu");
  EXPECT_EQ(refusal(), "model.safetensors: conditioner.pad is 3; latent diffusion's is null");
}

TEST_F(LdmExport, OneSizeForBothSides) {
  make();
  change("width: 32", "width: 48");
  EXPECT_EQ(write(), std::vector<std::string>{"that its images are 48 pixels wide: the YAML has one size for both sides, 32"});
}

// A disk that is full, or a limit, is met when all but the weights is written.
TEST_F(LdmExport, AllOrNothing) {
  make();
  {
    const files::FileSizeLimit limit(100000);
    EXPECT_NE(refusal().find("limit on file sizes"), std::string::npos) << refusal();
  }
  EXPECT_EQ(there(), std::vector<std::string>());
  folder.file("to/tokenizer/vocab.json", "{}");
  EXPECT_EQ(refusal(), "to/tokenizer: exists already; an export overwrites nothing");
  EXPECT_EQ(there(), std::vector<std::string>{"tokenizer"});
  EXPECT_EQ(refusal("out.yaml"),
            "to/out.yaml: is no name of a weights file with room for a YAML of the same name; expected a name like model.safetensors");
}

TEST(Partial, NothingAppearsWhereOneCannot) {
  const TempFolder folder;
  {
    Partial out({{"a", folder.path() / "a"}, {"b", folder.path() / "b"}});
    out.file("a", "first");
    EXPECT_EQ(without(error_of([&] { out.commit(); }), folder), "b: cannot be written: No such file or directory");
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Partial, AFolderByItsNameWithASlash) {
  const TempFolder folder;
  Partial out({{"", folder.path() / "out/"}});
  out.file("a", "first");
  out.commit();
  EXPECT_EQ(read_text(folder.path() / "out/a"), "first");
}

TEST(OpenClip, IsInvertedByItsInverse) {
  TempFolder folder;
  for (const auto& [path, bytes] : small_tokenizers()) folder.file(path, bytes);
  const Contents model = open_model(model_file(
      folder,
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: "
      "[8], transformer: {depth: [1]}}, conditioner: {type: clip_text, width: 16, depth: 3, heads: 4, mlp: 32, trainable: true, "
      "tokenizer: " +
          folder.file("clip") + "}}"));
  const NamedTensors words = below(model.tensors, "conditioner.");
  expect_same({from_open_clip(to_open_clip(words, 3), 3), {}}, {words, {}}, false);
  NamedTensors less = words;
  less.pop_back();
  EXPECT_NE(error_of([&] { to_open_clip(less, 3); }).find("its clip_text has no 'text_model."), std::string::npos);
}

}  // namespace
}  // namespace brume::test
