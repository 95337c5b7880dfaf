// diffusers' UNet2DConditionModel with a class embedding: words and a class, from its directory and back.
#include "brume/config/yaml.h"
#include "brume/interop/layouts/conditioning.h"
#include "support/directory.h"

namespace brume::test {
namespace {

class ClassBesideWords : public Directory {
 protected:
  /// What the import says of the class.
  std::string label(const std::map<std::string, std::string>& settings = {}) const {
    const Words told = words_of(*import(settings).options.find("conditioner"));
    EXPECT_EQ(told.prefix, "conditioner.0.");
    return dump_yaml(told.classes);
  }
  json config() const { return json::parse(read_text(path("unet/config.json"))); }
};

TEST_F(ClassBesideWords, ThereAndBack) {
  words("{type: class_label, classes: 5, dropout: 0, keep: true}");
  EXPECT_EQ(config()["num_class_embeds"], 5);
  EXPECT_EQ(config()["class_embed_type"], nullptr);
  EXPECT_EQ(json::parse(read_text(path("model_index.json")))["text_encoder"], json({"transformers", "CLIPTextModel"}));
  expect_all();
  fit(import());
  EXPECT_EQ(label(), dump_yaml(parse_yaml("{type: class_label, classes: 5, dropout: 0, keep: true}", "wanted")));
  EXPECT_EQ(label({{"null_class", "true"}}), dump_yaml(parse_yaml("{type: class_label, classes: 4, dropout: 0.1}", "wanted")));
}

TEST_F(ClassBesideWords, ByBrumesOwnNote) {
  words("{type: class_label, classes: 5, dropout: 0, keep: true}");
  const std::string source = folder.file("model.safetensors");
  EXPECT_EQ(export_diffusers(brume, source, folder.path() / "again"), std::vector<std::string>());
  expect_same(open_model(folder.file("again")), brume, true);
  EXPECT_EQ(without(error_of([&] { export_ldm(brume, source, folder.path() / "out.safetensors"); }), folder),
            "model.safetensors: its conditioner is 'composite', of words and a class; latent diffusion is given one of them");
}

TEST_F(ClassBesideWords, TheNullClassIsTold) {
  words("{type: class_label, classes: 5, dropout: 0.1}");
  EXPECT_EQ(config()["num_class_embeds"], 6);
  EXPECT_EQ(export_diffusers(brume, "model.safetensors", folder.path() / "again"),
            std::vector<std::string>{"that the last class is the null one, for cfg"});
}

// A class and an inpainted image.
TEST_F(ClassBesideWords, ThreeConditions) {
  words("{type: class_label, classes: 5, dropout: 0, keep: true}, {type: concat_image, image: masked, keep: true}");
  expect_all();
  const Words told = words_of(*import().options.find("conditioner"));
  EXPECT_TRUE(told.inpainting);
  EXPECT_FALSE(told.classes.entries.empty());
}

TEST_F(ClassBesideWords, WhatIsNoTableOfClassesIsRefused) {
  words("{type: class_label, classes: 5, dropout: 0, keep: true}");
  for (const char* other : {"identity", "projection", "simple_projection"}) {
    change("unet/config.json", [&](json& c) { c["class_embed_type"] = other; });
    EXPECT_EQ(refusal(), std::string("model/unet/config.json: class_embed_type is \"") + other +
                             "\"; the unet of brume supports null, a table of num_class_embeds classes, and \"timestep\" only");
  }
}

// class_embed_type "timestep": whoever imports it says how many classes there are.
TEST_F(ClassBesideWords, ClassesAsNumbers) {
  make(
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
      "attention_order: new, zero_init: false, class_embedding: sinusoidal}, conditioner: {type: class_label, classes: 40, dropout: 0}}");
  EXPECT_EQ(config()["class_embed_type"], "timestep");
  EXPECT_EQ(config()["num_class_embeds"], nullptr);
  expect_all({{"classes", "40"}});
  fit(import({{"classes", "40"}}));
  const auto told = [&](const std::map<std::string, std::string>& settings) {
    return dump_yaml(*import(settings).options.find("conditioner"));
  };
  EXPECT_EQ(told({{"classes", "40"}}), dump_yaml(parse_yaml("{type: class_label, classes: 40, dropout: 0}", "wanted")));
  EXPECT_EQ(told({{"classes", "40"}, {"null_class", "true"}}),
            dump_yaml(parse_yaml("{type: class_label, classes: 39, dropout: 0.1}", "wanted")));
  EXPECT_EQ(refusal(),
            "model/unet/config.json: class_embed_type is \"timestep\": the network receives classes as numbers, and the file does not "
            "say how many there are; classes=N sets it");
  EXPECT_EQ(refusal({{"classes", "none"}}), "classes=none: a number of classes is expected");
  change("unet/config.json", [&](json& c) { c["class_embed_type"] = nullptr; });
  EXPECT_EQ(refusal({{"classes", "4"}}), "classes=4: model/unet/config.json says itself how many classes there are: 0 (num_class_embeds)");
}

TEST_F(ClassBesideWords, ThereMustBeAClassToBeTheNullClass) {
  words();
  EXPECT_EQ(refusal({{"null_class", "true"}}),
            "null_class=true: model/unet/config.json has 0 classes (num_class_embeds), and the last of at least 2 can be the null class");
}

}  // namespace
}  // namespace brume::test
