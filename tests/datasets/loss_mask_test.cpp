// Masks of the loss: they stand where their pixels stand, whatever crop and mirror were drawn.
#include <cmath>
#include <fstream>
#include <set>
#include <vector>

#include "brume/core/loss_weights.h"
#include "brume/image/image.h"
#include "support.h"
#include "support/image_builders.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
constexpr ImageShape shape{3, 8, 8};

class LossMasks : public testing::Test {
 protected:
  /// A pattern with no symmetry.
  static uint8_t level(int64_t y, int64_t x) { return uint8_t((y * 37 + x * 11 + y * x) % 256); }
  static Image pattern(int64_t height, int64_t width) {
    Image image(height, width, 3);
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        for (int64_t c = 0; c < 3; ++c) image.row(y)[x * 3 + c] = level(y, x);
    return image;
  }
  void put(const std::string& name, const Image& image) const {
    fs::create_directories((dir.path / name).parent_path());
    write_png(dir / name, image);
  }
  std::string yaml(const std::string& more) const {
    return "{type: captioned_folder, path: " + (dir / "photos") + ", prompt: photo of sks cat, " + more + "}";
  }
  static std::vector<float> weights(const Opened& set, int64_t index, uint64_t draw) {
    std::vector<float> all(64, -1);
    loss_weights_of(*set.data)->read_weights(index, draw, shape, all);
    return all;
  }
  TempDir dir;
};

TEST_F(LossMasks, StandWhereTheirPixelsStand) {
  put("photos/a/one.png", pattern(12, 19));
  put("masks/a/one.png", pattern(12, 19));  // each pixel weighs what it is
  const Opened set(yaml("crop: random, flip: true, masks: " + (dir / "masks")), shape);
  std::set<std::vector<float>> seen;
  for (uint64_t draw = 0; draw < 20; ++draw) {
    const Picture picture = set.read(0, draw);
    EXPECT_EQ(picture.caption, "photo of sks cat");
    const std::vector<float> w = weights(set, 0, draw);
    for (size_t i = 0; i < 64; ++i) ASSERT_NEAR(w[i], (picture.pixels[i] + 1) / 2, 1.5 / 255) << draw << ", " << i;
    seen.insert(w);
  }
  EXPECT_GT(seen.size(), 5u) << "the crop moves";
}

TEST_F(LossMasks, AreTheTransparencyOfImages) {
  const auto alpha = [](int64_t y, int64_t x) { return int(y * 8 + x) * 4; };
  fs::create_directories(dir.path / "photos");
  std::ofstream(dir / "photos/one.png", std::ios::binary) << files::png_of(files::samples_of(pattern(8, 8), 8, true, alpha));
  const Opened set(yaml("alpha_mask: true"), shape);
  const std::vector<float> w = weights(set, 0, 0);
  for (size_t i = 0; i < 64; ++i) EXPECT_NEAR(w[i], double(i) * 4 / 255, 1.5 / 255) << i;
}

TEST_F(LossMasks, WeighWithTheFactorOfTheirSet) {
  put("photos/one.png", Image(8, 8, 3, 100));
  put("masks/one.png", Image(8, 8, 3, 255));
  const std::string set = "{data: " + yaml("masks: " + (dir / "masks")) + ", loss_weight: 0.5}";
  const std::string plain = "{data: " + yaml("crop: center") + "}";
  const Opened mixed("{type: mix, sets: [" + set + ", " + plain + "]}", shape);
  EXPECT_EQ(weights(mixed, 0, 3), std::vector<float>(64, 0.5f));
  EXPECT_EQ(weights(mixed, 1, 3), std::vector<float>(64, 1.0f));
  EXPECT_EQ(loss_weights_of(*Opened(yaml("crop: center"), shape).data), nullptr);
}

TEST_F(LossMasks, AreNamedIfTheyAreMissingOrOfAnotherSize) {
  put("photos/one.png", Image(8, 8, 3, 100));
  put("photos/two.png", Image(8, 8, 3, 100));
  put("masks/one.png", Image(9, 8, 3, 255));
  const std::string options = yaml("masks: " + (dir / "masks"));
  const std::string said = open_error(options, shape);
  EXPECT_NE(said.find("'two.png' has no mask: there is no '" + (dir / "masks/two") + "' with an extension of an image"), said.npos) << said;
  EXPECT_EQ(said.find("one.png"), said.npos) << said;
  put("masks/two.png", Image(8, 8, 3, 255));
  const Opened set(options, shape);
  try {
    weights(set, 0, 0);
    FAIL();
  } catch (const ConfigError& e) {
    EXPECT_NE(std::string(e.what()).find("one.png' is 8x8, and its mask"), std::string::npos) << e.what();
  }
  EXPECT_NE(open_error(yaml("alpha_mask: true, masks: x"), shape).find("give masks or alpha_mask, not both"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
