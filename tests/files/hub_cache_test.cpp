// Names on Hugging Face's hub stand for what its programs have fetched.
#include "brume/files/hub_cache.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "brume/config/errors.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

class HubCache : public testing::Test {
 protected:
  HubCache() { setenv("HF_HUB_CACHE", cache_.path().c_str(), 1); }
  ~HubCache() override { unsetenv("HF_HUB_CACHE"); }
  /// The path below the cache.
  std::string found(const std::string& name) const {
    try {
      return without(from_hub(name), cache_);
    } catch (const ConfigError& e) {
      return without(e.what(), cache_);
    }
  }
  TempFolder cache_;
};

TEST_F(HubCache, HasTheSnapshotOfTheBranchMain) {
  cache_.file("models--org--model-1.5/refs/main", "abc\n");
  cache_.file("models--org--model-1.5/snapshots/abc/model_index.json", "{}");
  cache_.file("models--org--model-1.5/snapshots/old/model_index.json", "{}");
  EXPECT_EQ(found("org/model-1.5"), "models--org--model-1.5/snapshots/abc");
}

TEST_F(HubCache, HasTheOnlySnapshotAndItsOnlyFileOfWeights) {
  cache_.file("models--org--one/snapshots/abc/README.md", "");
  cache_.file("models--org--one/snapshots/abc/one.safetensors", "");
  EXPECT_EQ(found("org/one"), "models--org--one/snapshots/abc/one.safetensors");
  cache_.file("models--org--one/snapshots/abc/two.safetensors", "");
  EXPECT_EQ(found("org/one"), "models--org--one/snapshots/abc") << "which of the two?";
}

TEST_F(HubCache, LacksAModel) {
  const std::string said = found("org/none");
  EXPECT_TRUE(said.starts_with("org/none: is no file here, and no model in '")) << said;
  EXPECT_NE(said.find("`hf download org/none` fetches it from the hub"), std::string::npos) << said;
}

TEST_F(HubCache, IsNotAskedForPaths) {
  for (const char* path : {"model", "a/b/c", "org/model.safetensors", "/org/model", "../model", "org/", "/tmp", "a b/c"})
    EXPECT_EQ(from_hub(path), path);
  const std::string folder = cache_.path().string() + "/run";
  EXPECT_EQ(from_hub(folder), folder);
}

}  // namespace
}  // namespace brume::test
