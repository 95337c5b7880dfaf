#include "brume/interop/inspect.h"

#include <ATen/ops/ones.h>

#include <nlohmann/json.hpp>

#include "brume/interop/import/import.h"
#include "brume/weights/safetensors.h"
#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

class Inspect : public ::testing::Test {
 protected:
  Inspect() {
    std::filesystem::create_directories(folder.file("unet"));
    std::filesystem::create_directories(folder.file("tokenizer"));
    std::filesystem::create_directories(folder.file("empty"));
    folder.file("unet/config.json", R"({"_class_name": "UNet2DModel"})");
    write_safetensors(folder.file("unet/model.safetensors"), {{"a", at::ones({2, 3})}, {"b", at::ones({4}, at::kHalf)}}, {{"k", "v"}});
    folder.file("unet/other.bin", "hello");
    folder.file("unet/notes.txt", "hello");
    folder.file("tokenizer/tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer"})");
  }
  std::string relative(std::string text) const {
    for (size_t at; (at = text.find(folder.path())) != std::string::npos;) text.replace(at, folder.path().size(), "DIR");
    return text;
  }
  TemporaryFolder folder;
};

// What bears the name of a configuration need not be a file.
TEST_F(Inspect, AFolderWhereAConfigurationIsExpected) {
  std::filesystem::create_directories(folder.file("tokenizer/config.json"));
  EXPECT_NE(relative(inspect(folder.path())).find("  tokenizer: CLIPTokenizer\n"), std::string::npos);
}

TEST_F(Inspect, ListsThePartsOfADirectory) {
  EXPECT_EQ(relative(inspect(folder.path())),
            "DIR: directory\n"
            "family: none that brume knows\n"
            "parts:\n"
            "  tokenizer: CLIPTokenizer\n"
            "  unet: UNet2DModel\n"
            "    model.safetensors: safetensors, 2 tensors, 10 parameters, 32 bytes, F16 and F32\n"
            "    DIR/unet/other.bin: is no weights file brume reads: it begins with 68 65 6c 6c 6f ('hello'); readable are safetensors "
            "files, PyTorch files (.pt, .pth, .ckpt) and GGUF files\n");
  EXPECT_EQ(error_of([&] { inspect(folder.file("empty")); }, folder), "empty: is a directory without weights or configurations of models");
}

TEST_F(Inspect, NamesWhatSteersAModel) {
  const std::pair<const char*, const char*> kinds[] = {{"input_hint_block.0.weight", "ControlNet"},
                                                       {"controlnet_cond_embedding.conv_in.weight", "ControlNet"},
                                                       {"lora_controlnet", "control-LoRA"},
                                                       {"body.0.block1.weight", "T2I-Adapter"},
                                                       {"ip_adapter.1.to_k_ip.weight", "IP-Adapter"}};
  for (const auto& [name, kind] : kinds) {
    SCOPED_TRACE(name);
    // With the names of the U-Net whose encoder it copies.
    const NamedTensors tensors{{name, at::ones({4, 4})},
                               {"input_blocks.0.0.weight", at::ones({8, 4, 3, 3})},
                               {"input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight", at::ones({8, 8})},
                               {"time_embed.0.weight", at::ones({32, 8})}};
    write_safetensors(folder.file("control.safetensors"), tensors, {});
    const std::string file = folder.file("control.safetensors");
    EXPECT_NE(inspect(file).find(std::string("family: ") + kind + ", sample.control steers by it\n"), std::string::npos) << inspect(file);
    const std::string refused = error_of([&] { import_model(std::filesystem::path(file)); }, folder);
    EXPECT_NE(refused.find(std::string("; it is a") + (kind[0] == 'I' ? "n " : " ") + kind + ", which sample.control steers by"),
              std::string::npos)
        << refused;
  }
}

TEST_F(Inspect, TellsProgramsTheSame) {
  const auto file = nlohmann::json::parse(inspect_json(folder.file("unet/model.safetensors")));
  EXPECT_EQ(file.at("format"), "safetensors");
  EXPECT_EQ(file.at("metadata"), (nlohmann::json{{"k", "v"}}));
  EXPECT_EQ(file.at("parameters"), 10);
  EXPECT_EQ(file.at("bytes"), 32);
  EXPECT_EQ(file.at("tensors")[0], (nlohmann::json{{"name", "a"}, {"dtype", "F32"}, {"shape", {2, 3}}, {"bytes", 24}}));
  EXPECT_TRUE(file.at("family").is_null());
  const auto directory = nlohmann::json::parse(inspect_json(folder.path()));
  ASSERT_EQ(directory.at("parts").size(), 2u);
  EXPECT_EQ(directory.at("parts")[0].at("class"), "CLIPTokenizer");
  EXPECT_EQ(directory.at("parts")[1].at("files")[0].at("tensors"), file.at("tensors"));
  EXPECT_EQ(directory.at("parts")[1].at("problems").size(), 1u);
}

TEST_F(Inspect, SaysWhatAFileIsBeforeItsTensors) {
  const auto path = folder.file("m.safetensors");
  write_safetensors(path, {{"a", at::ones({2})}},
                    {{"brume.format", "1"}, {"brume.classifier", "classes: 3\nnetwork:\n  type: resnet\x1b[2J\n"}, {"k", "v"}});
  EXPECT_EQ(relative(inspect(path)),
            "DIR/m.safetensors: safetensors\n"
            "family: brume classifier\n"
            "1 tensor, 2 parameters, 8 bytes\n"
            "metadata:\n"
            "  brume.format = 1\n"
            "  k = v\n"
            "configuration:\n"
            "  classifier:\n"
            "    classes: 3\n"
            "    network:\n"
            "      type: resnet [2J\n"
            "tensors:\n"
            "  a  F32      [2]                             8 bytes\n");
}

TEST_F(Inspect, KnowsATraining) {
  const auto path = folder.file("training.safetensors");
  write_safetensors(path, {{"a", at::ones({2})}}, {{"brume.config", "train:\n  steps: 3\n"}, {"brume.step", "2"}});
  const auto text = inspect(path);
  EXPECT_NE(text.find("family: a training of brume, which can be resumed\n"), std::string::npos) << text;
  EXPECT_NE(text.find("configuration:\n  train:\n    steps: 3\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace brume
