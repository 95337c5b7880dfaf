// Transformers of other programs, opened and written back: the tensors and keys of the original directory or file, bit by bit, and a model
// that brume opens again as it was. One table of names serves both ways.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/config/yaml.h"
#include "brume/interop/export/export.h"
#include "brume/interop/import/diffusers_transformer.h"
#include "brume/interop/layouts/sections.h"
#include "brume/interop/layouts/transformer_names.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/model_file.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

fs::path refs2(const std::string& name) { return ref_path("../refs2/" + name); }

/// A model as `brume export` opens it: with every key of its section, unless its text encoder is missing (PixArt's transformer alone).
Contents resolved(const fs::path& path, const ImportOptions& options = {}) {
  Contents contents = open_model(path, options);
  if (path.filename().string().starts_with("pixart")) return contents;
  Value root = Value::map();
  root.set("model", contents.metadata.required("model", path.string()));
  ModelSection section;
  const Value full = read_config(builtins(), root, section);
  contents.metadata.set("model", *full.find("model"));
  return contents;
}

nlohmann::json json_of(const fs::path& file) {
  std::ifstream stream(file);
  return nlohmann::json::parse(stream);
}

void expect_same_tensors(const NamedTensors& got, const NamedTensors& wanted) {
  EXPECT_EQ(got.size(), wanted.size());
  for (const NamedTensor& t : wanted) {
    const at::Tensor* mine = find(got, t.name);
    ASSERT_NE(mine, nullptr) << t.name;
    ASSERT_EQ(mine->sizes(), t.tensor.sizes()) << t.name;
    EXPECT_TRUE(mine->scalar_type() == t.tensor.scalar_type() && mine->equal(t.tensor)) << t.name;
  }
}

/// The keys of the original that the export gives as well have the same values.
void expect_same_keys(const fs::path& got, const fs::path& wanted, const std::vector<std::string>& needed) {
  const nlohmann::json mine = json_of(got), original = json_of(wanted);
  for (const auto& [key, value] : original.items())
    if (mine.contains(key) && key != "_diffusers_version") {
      EXPECT_EQ(mine[key], value) << got << " " << key;
    }
  for (const std::string& key : needed) EXPECT_TRUE(mine.contains(key)) << key;
}

struct Directory {
  const char* path;
  const char* component;  ///< "transformer/" in a pipeline
};

class TransformerDirectories : public testing::TestWithParam<Directory> {};

TEST_P(TransformerDirectories, AreWrittenAsTheyWere) {
  const fs::path original = refs2(GetParam().path);
  if (!fs::exists(original)) GTEST_SKIP() << original << " is not there";
  const TempFolder folder;
  const fs::path out = folder.path() / "out";
  const Contents model = resolved(original);
  export_diffusers(model, original.string(), out);
  const std::string component = GetParam().component;
  expect_same_tensors(load_tensors((out / component / "diffusion_pytorch_model.safetensors").string()),
                      load_tensors((original / component / "diffusion_pytorch_model.safetensors").string()));
  expect_same_keys(out / component / "config.json", original / component / "config.json",
                   {"_class_name", "num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "patch_size"});
  if (!component.empty()) {
    const nlohmann::json index = json_of(out / "model_index.json"), published = json_of(original / "model_index.json");
    for (const auto& [part, names] : published.items()) {
      ASSERT_TRUE(index.contains(part)) << part;
      if (part.starts_with("text_encoder")) {
        EXPECT_EQ(index[part], names) << part;
        NamedTensors encoder = load_tensors((original / part / "model.safetensors").string());
        const NamedTensors mine = load_tensors((out / part / "model.safetensors").string());
        for (NamedTensor& t : encoder)  // rows beyond the tokenizer's are left out
          if (t.name.ends_with("token_embedding.weight")) t.tensor = t.tensor.narrow(0, 0, find(mine, t.name)->size(0));
        expect_same_tensors(mine, encoder);
      }
    }
    EXPECT_EQ(index["_class_name"], published["_class_name"]);
  }
  expect_same(open_model(out), model, true);
  fs::remove(out / "brume.yaml");  // the published layout alone
  expect_same(open_model(out), model, false);
  const Value got = import_model(out).options, wanted = import_model(original).options;
  for (const char* part : {"noise", "parameterization"})
    EXPECT_EQ(text_of(part_of(got, part), "type"), text_of(part_of(wanted, part), "type")) << part;
}

INSTANTIATE_TEST_SUITE_P(References, TransformerDirectories,
                         testing::Values(Directory{"dit/dit_tiny_p2_sigma_diffusers", "transformer"},
                                         Directory{"pixart/pixart_tiny_diffusers", ""}, Directory{"sd3/tiny_sd3", "transformer"},
                                         Directory{"flux/tiny_flux", "transformer"}),
                         [](const auto& info) {
                           const std::string path = info.param.path;
                           return path.substr(0, path.find('/'));
                         });

class DitFiles : public testing::TestWithParam<std::pair<const char*, std::map<std::string, std::string>>> {};

TEST_P(DitFiles, AreWrittenAsTheyWere) {
  const fs::path original = refs2(GetParam().first);
  if (!fs::exists(original)) GTEST_SKIP() << original << " is not there";
  const TempFolder folder;
  const Contents model = resolved(original, {GetParam().second, {}});
  const fs::path file = folder.path() / original.filename();
  export_dit(model, original.string(), file);
  const NamedTensors wanted = load_tensors(original.string()), got = load_tensors(file.string());
  for (const NamedTensor& t : got) {
    const at::Tensor* theirs = find(wanted, t.name);
    ASSERT_NE(theirs, nullptr) << t.name;
    if (t.name == "pos_embed")
      EXPECT_LT((t.tensor - theirs->to(at::kFloat)).abs().max().item<double>(), 1e-6);
    else if (t.tensor.sizes() == theirs->sizes())  // SiT's unused half is left out
      EXPECT_TRUE(t.tensor.equal(*theirs)) << t.name;
    else
      EXPECT_TRUE(t.name.starts_with("final_layer.linear.")) << t.name;
  }
  for (const NamedTensor& t : wanted)
    if (t.name != "y_embedder.y_embedding") {
      EXPECT_NE(find(got, t.name), nullptr) << t.name;
    }
  const Contents again = resolved(file);
  expect_same(again, model, false);
  const Value parts = model.metadata.required("model", "a"), made = again.metadata.required("model", "a");
  for (const char* key : {"network", "conditioner", "noise", "parameterization", "variance"})
    if (const Value* had = parts.find(key)) {
      EXPECT_EQ(dump_yaml(*made.find(key)), dump_yaml(*had)) << key;
    }
}

INSTANTIATE_TEST_SUITE_P(
    References, DitFiles,
    testing::Values(std::pair<const char*, std::map<std::string, std::string>>{"dit/dit_tiny_p2_sigma.safetensors",
                                                                               {{"program", "dit"}, {"num_heads", "4"}}},
                    std::pair<const char*, std::map<std::string, std::string>>{"sit/sit_tiny_p2_sigma.safetensors",
                                                                               {{"program", "sit"}, {"num_heads", "4"}}},
                    std::pair<const char*, std::map<std::string, std::string>>{"pixart/pixart_tiny.safetensors", {{"num_heads", "3"}}}),
    [](const auto& info) {
      const std::string path = info.param.first;
      return path.substr(0, path.find('/'));
    });

// What the references do not have: norms of queries and keys, blocks with two attentions, more mlp than width in a single block.
TEST(TransformerNames, OfJoinedLayersAreSplitAndJoined) {
  const LayerNames names = mmdit_names(true, 1, 1, {});
  const NamedTensors ours{{"single_blocks.0.linear1.weight", at::arange(7 * 2, at::kFloat).view({7, 2})},
                          {"single_blocks.0.linear1.bias", at::arange(7, at::kFloat)},
                          {"joint_blocks.0.x_block.attn.qkv.weight", at::arange(12, at::kFloat).view({6, 2})},
                          {"joint_blocks.0.context_block.attn.qkv.weight", at::arange(12, at::kFloat).view({6, 2})},
                          {"joint_blocks.0.x_block.attn.ln_q.weight", at::arange(3, at::kFloat)}};
  const NamedTensors theirs = split_layers(ours, names, 2, "test");
  EXPECT_EQ(find(theirs, "single_transformer_blocks.0.proj_mlp.weight")->sizes(), at::IntArrayRef({1, 2}));
  EXPECT_EQ(find(theirs, "single_transformer_blocks.0.attn.to_k.bias")->data_ptr<float>()[0], 2);
  expect_same_tensors(renamed_layers(theirs, names, "test", "mmdit"), ours);
  const NamedTensors other{{"blocks.0.other.weight", ours[1].tensor}};
  EXPECT_EQ(error_of([&] { split_layers(other, names, 2, "a.safetensors"); }),
            "a.safetensors: diffusers has no place for the tensor 'blocks.0.other.weight'");
}

TEST(TransformerExport, RefusesWhatDiffusersHasNoClassFor) {
  const auto refusal = [](const std::string& network, const std::string& conditioner) {
    const TempFolder folder;
    const std::string source =
        model_file(folder, "{image: {channels: 3, height: 16, width: 16}, network: " + network + ", conditioner: " + conditioner + "}");
    return error_of([&] { export_diffusers(open_model(source), source, folder.path() / "out"); });
  };
  const std::string classes = "{type: class_label, classes: 5, dropout: 0.1}", small = "type: dit, width: 24, depth: 1, heads: 2";
  EXPECT_NE(refusal("{" + small + ", rotary: true}", classes).find("network.rotary is true"), std::string::npos);
  EXPECT_NE(refusal("{" + small + ", qk_norm: true}", classes).find("network.qk_norm is true; diffusers' DiTTransformer2DModel has false"),
            std::string::npos);
  EXPECT_NE(refusal("{" + small + "}", "none").find("takes a class_label with a null class (dropout)"), std::string::npos);
  EXPECT_EQ(refusal("{" + small + "}", classes), "no error");
}

}  // namespace
}  // namespace brume::test
