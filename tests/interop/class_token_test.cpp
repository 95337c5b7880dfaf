// LDM's ClassEmbedder, a class as a context of one token: from a file with its YAML and back, and what other encoders are said to be.
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "brume/config/yaml.h"
#include "brume/interop/export/export.h"
#include "brume/interop/layouts/sections.h"
#include "brume/weights/safetensors.h"
#include "support/model_file.h"
#include "support/process.h"
#include "support/registry.h"

namespace brume::test {
namespace {

std::string model_of(const std::string& conditioner) {
  return "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
         "heads: 1, zero_init: false, transformer: {depth: [1]}}, noise: {type: scaled_linear, beta_start: 0.0015, beta_end: 0.0195}, "
         "conditioner: " +
         conditioner + "}";
}

class ClassToken : public testing::Test {
 protected:
  void write(int64_t classes, double dropout) {
    const std::string source =
        model_file(folder_, model_of(fmt::format("{{type: class_label, classes: {}, dropout: {}, context_width: 24}}", classes, dropout)));
    wanted_ = open_model(source);
    notes_ = export_ldm(wanted_, source, folder_.path() / "out.safetensors");
  }
  Imported imported(const std::string& null_class = "") const {
    ImportOptions options;
    if (!null_class.empty()) options.settings["null_class"] = null_class;
    return import_model(folder_.path() / "out.safetensors", options);
  }
  static std::string said(const Imported& model, const char* key) { return text_of(*model.options.find("conditioner"), key); }
  TempFolder folder_;
  Contents wanted_;
  std::vector<std::string> notes_;
};

// The class-conditional model of ImageNet has a thousand classes and one more, which is the null class.
TEST_F(ClassToken, AThousandAndOneClasses) {
  write(1000, 0.1);
  const std::string yaml = read_text(folder_.path() / "out.yaml");
  for (const char* line : {"conditioning_key: crossattn", "ldm.modules.encoders.modules.ClassEmbedder", "n_classes: 1001", "embed_dim: 24"})
    EXPECT_NE(yaml.find(line), std::string::npos) << line;
  const Imported model = imported();
  expect_same(contents_of(model), wanted_, false);
  EXPECT_EQ(said(model, "classes"), "1000");
  EXPECT_EQ(said(model, "dropout"), "0.1");
  EXPECT_EQ(said(model, "context_width"), "24");
  EXPECT_TRUE(model.losses.empty()) << model.losses.front();
  ASSERT_EQ(model.sample.find("guidance")->items.size(), 1u);
  EXPECT_EQ(text_of(model.sample.find("guidance")->items[0], "type"), "cfg");
  EXPECT_NE(find(SafetensorsFile(folder_.file("out.safetensors")).tensors(), "cond_stage_model.embedding.weight"), nullptr);
}

TEST_F(ClassToken, WhetherTheLastIsTheNullClassIsSaid) {
  write(4, 0.1);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_EQ(notes_[0], "that the last class is the null one, for cfg");
  const Imported silent = imported(), told = imported("true");
  EXPECT_EQ(said(silent, "classes"), "5");
  EXPECT_EQ(said(silent, "dropout"), "0");
  EXPECT_TRUE(silent.sample.find("guidance")->items.empty());
  ASSERT_EQ(silent.losses.size(), 1u);
  EXPECT_EQ(
      silent.losses[0],
      "not in the file: whether the last of its 5 classes is the null class, for guidance; it is taken to be none, and null_class=true "
      "says otherwise");
  EXPECT_EQ(said(told, "classes"), "4");
  EXPECT_TRUE(told.losses.empty());
  EXPECT_EQ(error_of([&] { imported("yes"); }), "null_class=yes: expected true or false");
  // Newer programs write how often a class is left out.
  std::string yaml = read_text(folder_.path() / "out.yaml");
  folder_.file("out.yaml", yaml.replace(yaml.find("n_classes: 5"), 12, "n_classes: 5, ucg_rate: 0.2"));
  EXPECT_EQ(said(imported(), "classes"), "4");
  EXPECT_EQ(said(imported(), "dropout"), "0.2");
}

TEST_F(ClassToken, OtherEncodersAreNamed) {
  write(4, 0.1);
  const auto refused = [&](const std::string& name, std::vector<int64_t> shape) {
    Source source = open_source(folder_.path() / "out.safetensors");
    for (NamedTensor& t : source.tensors)
      if (t.name == "cond_stage_model.embedding.weight") t = {name, at::zeros(shape)};
    return without(error_of([&] { import_model(source); }), folder_);
  };
  EXPECT_EQ(refused("cond_stage_model.embedding.weight", {5, 16}),
            "out.safetensors: the class's token has width 16, and the U-Net attends to tokens of 24");
  EXPECT_EQ(
      refused("cond_stage_model.transformer.token_emb.weight", {5, 24}),
      "out.safetensors: its condition is encoded by BERTEmbedder: a transformer over the tokens of bert-base-uncased, whose vocabulary "
      "is in no such file. brume has neither; it has CLIP's text encoders (FrozenCLIPEmbedder, FrozenOpenCLIPEmbedder) and classes "
      "(ClassEmbedder)");
  EXPECT_NE(refused("cond_stage_model.other.weight", {5, 24}).find("its condition is encoded by ClassEmbedder; brume has"),
            std::string::npos);
}

}  // namespace
}  // namespace brume::test
