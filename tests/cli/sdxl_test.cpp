// Stable Diffusion XL on the command line: import, export and back, its sizes, an embedding of both encoders, what the images record.
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "brume/image/image.h"
#include "brume/weights/safetensors.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

class SdxlProgram : public testing::Test {
 protected:
  void SetUp() override { BRUME_NEED_REF("../refs2/sdxl/tiny_sdxl/model_index.json"); }
  Finished at(std::vector<std::string> words) { return run_brume(std::move(words), {folder_.path()}); }
  /// Returns the image of a model with these options more.
  Image made(const std::string& model, std::vector<std::string> more = {}) {
    std::vector<std::string> words{"sample", model, "--prompt", "a dax", "--negative", "grey", "-n", "1",       "--steps",     "2",
                                   "--cfg",  "3",   "--height", "64",    "--width",    "64",   "-o", "out.png", "--precision", "fp32"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = at(words);
    EXPECT_EQ(done.code, 0) << done.err;
    said_ = done.err;
    return read_image((folder_.path() / "out.png").string());
  }
  const std::string source_ = ref_path("../refs2/sdxl/tiny_sdxl").string();
  std::string said_;
  TempFolder folder_;
};

TEST_F(SdxlProgram, AnExportedDirectoryIsTheModel) {
  ASSERT_EQ(at({"import", source_, "-o", "xl.safetensors"}).code, 0);
  const Finished out = at({"export", "xl.safetensors", "--to", "diffusers", "dir"});
  ASSERT_EQ(out.code, 0) << out.err;
  const Image own = made("xl.safetensors");
  EXPECT_EQ(made("dir"), own) << "as brume.yaml says it";
  fs::remove(folder_.path() / "dir/brume.yaml");
  EXPECT_EQ(made("dir"), own) << "as diffusers reads it";
}

TEST_F(SdxlProgram, SizesAreRecordedAndReplayed) {
  const Image plain = made(source_);
  EXPECT_EQ(made(source_, {"--original-size", "64x64", "--crop", "0,0", "--target-size", "64x64"}), plain);
  const Image cropped = made(source_, {"--crop", "0,32", "--negative-original-size", "512x256"});
  EXPECT_NE(cropped, plain);
  const auto text = read_png_text((folder_.path() / "out.png").string());
  bool crop = false, negative = false;
  for (const auto& [key, value] : text) {
    crop = crop || value.find("0,32") != std::string::npos;
    negative = negative || value.find("512x256") != std::string::npos;
  }
  EXPECT_TRUE(crop && negative);
}

TEST_F(SdxlProgram, SizesThatAreNone) {
  const auto said = [&](const char* option, const char* value) {
    return at({"sample", source_, "--prompt", "a", option, value, "-o", "a.png"}).err;
  };
  EXPECT_EQ(said("--original-size", "64"), "error: --original-size: '64' is not like 1024x768, height and width\n");
  EXPECT_EQ(said("--negative-crop", "1,-1"), "error: --negative-crop: '1,-1' is not like 0,128, top and left\n");
}

TEST_F(SdxlProgram, AnEmbeddingOfBothEncoders) {
  const Image plain = made(source_);
  write_safetensors(folder_.file("dax.safetensors"), {{"clip_l", at::full({2, 64}, 0.5f)}, {"clip_g", at::full({1, 128}, 0.5f)}});
  EXPECT_NE(made(source_, {"--embedding", "dax.safetensors"}), plain);
  EXPECT_EQ(said_.find("warning"), std::string::npos) << said_;
  write_safetensors(folder_.file("dax.safetensors"), {{"clip_g", at::full({1, 128}, 0.5f)}});
  EXPECT_NE(made(source_, {"--embedding", "dax.safetensors:dax"}), plain);
  EXPECT_NE(said_.find("warning: the embedding 'dax' has no vectors of 64 numbers, so that one of the text encoders reads it as a word\n"),
            std::string::npos)
      << said_;
  write_safetensors(folder_.file("dax.safetensors"), {{"clip_l", at::full({2, 63}, 0.5f)}, {"clip_g", at::full({1, 128}, 0.5f)}});
  EXPECT_NE(at({"sample", source_, "--prompt", "a dax", "--embedding", "dax.safetensors", "-n", "1", "-o", "a.png"})
                .err.find("the vectors of the embedding 'dax' have 63 numbers, and this model's text encoders have 64 and 128"),
            std::string::npos);
  write_safetensors(folder_.file("dax.safetensors"), {{"dax", at::full({2, 96}, 0.5f)}});
  const Finished done = at({"sample", source_, "--prompt", "a dax", "--embedding", "dax.safetensors", "-n", "1", "-o", "a.png"});
  EXPECT_NE(done.err.find("the vectors of the embedding 'dax' have 96 numbers, and this model's text encoders have 64 and 128"),
            std::string::npos)
      << done.err;
}

}  // namespace
}  // namespace brume::test
