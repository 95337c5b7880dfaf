// brume export: what is written is opened by `brume sample`, and gives the same image.
#include <ATen/TensorOperators.h>
#include <ATen/ops/div.h>
#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "brume/interop/export/export.h"
#include "brume/weights/weights_file.h"
#include "support/model_file.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

TEST(Export, SamplesTheSameFromADirectory) {
  const TempFolder folder;
  const auto at = [&](std::vector<std::string> words) { return run_brume(std::move(words), {folder.path()}); };
  folder.file("m.yaml",
              "model:\n  image: {height: 16, width: 16}\n  network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, heads: 4, "
              "attention_resolutions: [8], zero_init: false}\n  noise: cosine\ntrain: {data: {type: shapes}, batch: 2, steps: 1, preview: "
              "{count: 1}}\nsample: {steps: 2}\ncompute: {threads: 1}\n");
  Finished done = at({"train", "m.yaml", "--out", "run"});
  ASSERT_EQ(done.code, 0) << done.err;
  done = at({"export", "run/model.safetensors", "--to", "diffusers", "out"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_EQ(done.out, "out\n");
  for (const char* source : {"run/model.safetensors", "out"}) {
    done = at({"sample", source, "-n", "1", "--precision", "fp32", "-o", std::string(source == std::string("out") ? "b" : "a") + ".png"});
    ASSERT_EQ(done.code, 0) << done.err;
  }
  EXPECT_EQ(read_image((folder.path() / "a.png").string()), read_image((folder.path() / "b.png").string()));
  done = at({"export", "run/model.safetensors", "--to", "diffusers", "out"});
  EXPECT_EQ(done.code, 2);
  EXPECT_EQ(done.err, "error: out: exists already; an export overwrites nothing\n");
}

/// The published layout alone, read as other programs' directories are.
TEST(Export, IsADirectoryOfDiffusersWithoutItsNote) {
  BRUME_NEED_REF("ldm/tiny_ldm.ckpt");
  const std::string file = ref_path("ldm/tiny_ldm.ckpt").string();
  const TempFolder folder;
  const auto at = [&](std::vector<std::string> words) {
    const Finished done = run_brume(std::move(words), {folder.path()});
    EXPECT_EQ(done.code, 0) << done.err;
  };
  at({"import", file, "-o", "a.safetensors", "--set", "tokenizer=" + ref_path("pipe/tiny_sd/tokenizer").string(), "--set", "text_heads=4"});
  at({"export", "a.safetensors", "--to", "diffusers", "out"});
  fs::remove(folder.path() / "out/brume.yaml");
  at({"import", "out", "-o", "b.safetensors"});
  const NamedTensors a = load_tensors(folder.file("a.safetensors")), b = load_tensors(folder.file("b.safetensors"));
  ASSERT_EQ(a.size(), b.size());
  for (const NamedTensor& t : a) {
    const at::Tensor* other = find(b, t.name);
    ASSERT_NE(other, nullptr) << t.name;
    EXPECT_TRUE(t.tensor.equal(*other)) << t.name;
  }
  for (const char* name : {"a", "b"})
    at({"sample", std::string(name) + ".safetensors", "--prompt", "a cat", "-n", "1", "--steps", "2", "-o", std::string(name) + ".png"});
  EXPECT_EQ(read_image((folder.path() / "a.png").string()), read_image((folder.path() / "b.png").string()));
}

// A class together with words (UNet2DConditionModel with num_class_embeds): both are asked for, and either changes the image.
TEST(Export, SamplesByWordsAndAClass) {
  const TempFolder folder;
  for (const auto& [path, bytes] : small_tokenizers()) folder.file(path, bytes);
  const std::string source = model_file(
      folder,
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, heads: 4, zero_init: false, "
      "attention_resolutions: [8], transformer: {depth: [1]}}, autoencoder: {type: kl, channels: 32, multipliers: [1], blocks: 1}, "
      "conditioner: {type: composite, of: [{type: clip_text, width: 16, depth: 1, heads: 4, mlp: 32, trainable: true, tokenizer: " +
          folder.file("clip") + "}, {type: class_label, classes: 3, dropout: 0, keep: true}]}}");
  export_diffusers(open_model(source), source, folder.path() / "out");
  fs::remove(folder.path() / "out/brume.yaml");
  std::vector<std::vector<uint8_t>> images;
  for (const auto& [prompt, label] : {std::pair("a cat", "0"), {"a cat", "1"}, {"a dog", "1"}}) {
    const Finished done = run_brume({"sample", "out", "--prompt", prompt, "--classes", label, "-n", "1", "--steps", "2", "--cfg", "3",
                                     "--precision", "fp32", "--threads", "1", "-o", "a.png"},
                                    {folder.path()});
    ASSERT_EQ(done.code, 0) << done.err;
    images.push_back(read_image((folder.path() / "a.png").string()).pixels);
  }
  EXPECT_NE(images[0], images[1]) << "the class";
  EXPECT_NE(images[1], images[2]) << "the words";
}

// Values beyond the range of half precision are what first stages are known for: such an image would be black.
TEST(Export, ANumberThatIsNoneIsNoPicture) {
  const TempFolder folder;
  const std::string source = model_file(folder,
                                        "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: "
                                        "1, zero_init: false}, autoencoder: {type: kl, channels: 32, multipliers: [1], blocks: 1}}");
  Contents model = open_model(source);
  for (NamedTensor& t : model.tensors)
    if (t.name == "autoencoder.decoder.conv_out.bias") t.tensor = t.tensor / 0;
  export_diffusers(model, source, folder.path() / "out");
  const Finished done = run_brume({"sample", "out", "-n", "1", "--steps", "2", "--threads", "1", "-o", "a.png"}, {folder.path()});
  EXPECT_EQ(done.code, 2);
  EXPECT_TRUE(
      done.err.ends_with("error: the autoencoder gave NaN or infinity. Weights that need a wider range are computed "
                         "in fp32 (compute.precision)\n"))
      << done.err;
  EXPECT_FALSE(fs::exists(folder.path() / "a.png"));
}

}  // namespace
}  // namespace brume::test
