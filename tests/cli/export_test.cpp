// brume export: what is written is opened by `brume sample`, and gives the same image.
#include <gtest/gtest.h>

#include "io/image.h"
#include "support/process.h"
#include "support/tempdir.h"

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
  EXPECT_EQ(io::read_image((folder.path() / "a.png").string()), io::read_image((folder.path() / "b.png").string()));
  done = at({"export", "run/model.safetensors", "--to", "diffusers", "out"});
  EXPECT_EQ(done.code, 2);
  EXPECT_EQ(done.err, "error: out: is there already; an export overwrites nothing\n");
}

}  // namespace
}  // namespace brume::test
