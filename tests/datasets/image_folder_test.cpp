// Folders of images: order and labels, the geometry of resize, crop and flip, and what is said of a folder that is not one.
#include <algorithm>
#include <set>

#include "brume/image/image.h"
#include "support.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

/// Red is the column, green the row, blue as given.
Image coordinates(int64_t height, int64_t width, uint8_t blue = 0) {
  Image image(height, width, 3);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x) {
      uint8_t* p = image.row(y) + 3 * x;
      p[0] = static_cast<uint8_t>(x);
      p[1] = static_cast<uint8_t>(y);
      p[2] = blue;
    }
  return image;
}

constexpr ImageShape rgb{3, 8, 8};

struct ImageFolder : testing::Test {
  TempDir dir;
  void add(const std::string& name, int64_t height = 8, int64_t width = 8, uint8_t blue = 0) const {
    fs::create_directories((dir.path / name).parent_path());
    write_png(dir / "_.png", coordinates(height, width, blue));
    fs::rename(dir.path / "_.png", dir.path / name);
  }
  std::string yaml(const std::string& options = "") const {
    return "{type: image_folder, path: " + dir.path.string() + (options.empty() ? "" : ", " + options) + "}";
  }
  std::string error(const std::string& options = "", ImageShape shape = rgb) const { return open_error(yaml(options), shape); }
  std::string read_error(const std::string& options = "", ImageShape shape = rgb) const {
    const Opened set(yaml(options), shape);
    return error_of([&] { set.read(0); });
  }
  std::string name(const std::string& file) const { return "'" + dir / file + "'"; }
};

TEST_F(ImageFolder, SubFoldersAreClassesInTheOrderOfTheirNames) {
  add("dog/b.png", 8, 8, 10);
  add("cat/deep/er/z.PNG", 8, 8, 20);
  add("cat/a.png", 8, 8, 30);
  add("Zebra/1.png", 8, 8, 40);
  add("dog/a.png", 8, 8, 50);
  add(".hidden/a.png");
  add("dog/._a.png");
  write_file(dir / "readme.txt", "not an image");
  const Opened set(yaml(), rgb);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"Zebra", "cat", "dog"}));
  ASSERT_EQ(set.data->size(), 5);
  std::vector<std::pair<int64_t, long>> found;
  for (int64_t i = 0; i < 5; ++i) found.emplace_back(set.read(i).label, set.read(i).value(rgb, 2, 0, 0));
  EXPECT_EQ(found, (std::vector<std::pair<int64_t, long>>{{0, 40}, {1, 30}, {1, 20}, {2, 50}, {2, 10}}));
  EXPECT_THROW(set.read(5), std::out_of_range);
}

TEST_F(ImageFolder, ImagesInTheFolderItselfAreUnlabelled) {
  add("2.png", 8, 8, 2);
  add("10.png", 8, 8, 10);
  const Opened set(yaml(), rgb);
  EXPECT_TRUE(set.data->classes().empty());
  ASSERT_EQ(set.data->size(), 2);
  EXPECT_EQ(set.read(0).value(rgb, 2, 0, 0), 10);
  EXPECT_EQ(set.read(1).label, -1);
}

TEST_F(ImageFolder, ExtensionsAreChosen) {
  add("a.png");
  write_file(dir / "b.ppm", "P6 8 8 255\n" + std::string(8 * 8 * 3, 'A'));
  EXPECT_EQ(Opened(yaml(), rgb).data->size(), 2);
  const Opened set(yaml("extensions: [.PPM]"), rgb);
  ASSERT_EQ(set.data->size(), 1);
  EXPECT_EQ(set.read(0).value(rgb, 1, 3, 3), 'A');
}

TEST_F(ImageFolder, PixelsArriveChannelByChannel) {
  add("a.png", 8, 8, 255);
  const Picture p = Opened(yaml(), rgb).read(0);
  for (int64_t y = 0; y < 8; ++y)
    for (int64_t x = 0; x < 8; ++x) {
      EXPECT_EQ(p.value(rgb, 0, y, x), x);
      EXPECT_EQ(p.value(rgb, 1, y, x), y);
      EXPECT_EQ(p.pixels[static_cast<size_t>(128 + 8 * y + x)], 1.0f);
    }
  const ImageShape grey{1, 8, 8};
  EXPECT_NEAR(Opened(yaml(), grey).read(0).value(grey, 0, 0, 0), 29, 1);  // 0.114 of blue
}

TEST_F(ImageFolder, CentreCropCutsTheMiddle) {
  add("a.png", 12, 20);
  const Picture p = Opened(yaml("resize: none"), rgb).read(0, 5);
  EXPECT_EQ(p.value(rgb, 0, 0, 0), 6);
  EXPECT_EQ(p.value(rgb, 1, 0, 0), 2);
  EXPECT_EQ(p.value(rgb, 0, 7, 7), 13);
  EXPECT_EQ(p.value(rgb, 1, 7, 7), 9);
}

TEST_F(ImageFolder, RandomCropReachesEveryPlaceAndFollowsFromTheDraw) {
  add("a.png", 10, 12);
  const Opened set(yaml("resize: none, crop: random, flip: true"), rgb);
  std::set<std::tuple<long, long, bool>> places;
  for (uint64_t draw = 0; draw < 600; ++draw) {
    const Picture p = set.read(0, draw);
    ASSERT_EQ(p, set.read(0, draw));
    const long first = p.value(rgb, 0, 0, 0), last = p.value(rgb, 0, 0, 7), top = p.value(rgb, 1, 0, 0);
    const bool mirrored = first > last;
    for (int64_t y = 0; y < 8; ++y)
      for (int64_t x = 0; x < 8; ++x) {
        ASSERT_EQ(p.value(rgb, 0, y, x), mirrored ? first - x : first + x);
        ASSERT_EQ(p.value(rgb, 1, y, x), top + y);
      }
    places.emplace(std::min(first, last), top, mirrored);
  }
  EXPECT_EQ(places.size(), 5u * 3 * 2);
}

TEST_F(ImageFolder, FlipMirrorsHalfOfTheDraws) {
  add("a.png");
  const Opened set(yaml("flip: true"), rgb), plain(yaml(), rgb);
  int mirrored = 0;
  for (uint64_t draw = 0; draw < 1000; ++draw) mirrored += set.read(0, draw).value(rgb, 0, 0, 0) == 7;
  EXPECT_NEAR(mirrored, 500, 80);
  for (uint64_t draw = 0; draw < 50; ++draw) EXPECT_EQ(plain.read(0, draw), plain.read(0, 0));
}

TEST_F(ImageFolder, SmallestSideKeepsTheProportions) {
  add("wide.png", 16, 48);
  add("high.png", 48, 16);
  const Opened set(yaml(), rgb);
  const Picture high = set.read(0), wide = set.read(1);  // 48x16 becomes 24x8, of which rows 8 to 15 remain
  for (int64_t y = 0; y < 8; ++y)
    for (int64_t x = 0; x < 8; ++x) {
      EXPECT_NEAR(static_cast<double>(wide.value(rgb, 0, y, x)), 2.0 * static_cast<double>(x + 8) + 0.5, 0.5);
      EXPECT_NEAR(static_cast<double>(wide.value(rgb, 1, y, x)), 2.0 * static_cast<double>(y) + 0.5, 0.5);
      EXPECT_NEAR(static_cast<double>(high.value(rgb, 0, y, x)), 2.0 * static_cast<double>(x) + 0.5, 0.5);
      EXPECT_NEAR(static_cast<double>(high.value(rgb, 1, y, x)), 2.0 * static_cast<double>(y + 8) + 0.5, 0.5);
    }
}

TEST_F(ImageFolder, SmallestSideFitsEveryProportion) {
  for (int64_t height = 1; height < 40; height += 3)
    for (int64_t width = 1; width < 40; width += 4) {
      add("a.png", height, width);
      for (const ImageShape shape : {rgb, ImageShape{3, 5, 17}, ImageShape{1, 13, 2}}) {
        const Opened set(yaml("crop: random"), shape);
        ASSERT_NO_THROW(set.read(0, 3)) << height << "x" << width << " to " << shape.text();
      }
    }
}

TEST_F(ImageFolder, StretchDoesNotKeepTheProportions) {
  add("a.png", 16, 48);
  const Picture p = Opened(yaml("resize: stretch"), rgb).read(0);
  for (int64_t x = 0; x < 8; ++x) EXPECT_NEAR(static_cast<double>(p.value(rgb, 0, 4, x)), 6.0 * static_cast<double>(x) + 2.5, 0.5);
}

TEST_F(ImageFolder, EightThreadsReadWhatOneReads) {
  for (int i = 0; i < 20; ++i) add("class/" + std::to_string(i) + ".png", 9 + i, 30 - i, static_cast<uint8_t>(i));
  expect_same_on_8_threads(Opened(yaml("crop: random, flip: true"), rgb), 20);
}

TEST_F(ImageFolder, FoldersThatAreNone) {
  EXPECT_EQ(open_error("image_folder", rgb), "x.yaml:1:1: dataset: missing 'path' (the folder of the images)");
  EXPECT_EQ(open_error("{type: image_folder, path: /nowhere}", rgb), "x.yaml:1:1: dataset: there is no folder '/nowhere'");
  EXPECT_EQ(open_error("{type: image_folder, path: no/where}", rgb),
            "x.yaml:1:1: dataset: there is no folder 'no/where' in " + fs::current_path().string());
  add("a.png");
  EXPECT_EQ(open_error("{type: image_folder, path: " + dir / "a.png" + "}", rgb),
            "x.yaml:1:1: dataset: " + name("a.png") + " is not a folder");
  EXPECT_EQ(error("", {4, 8, 8}), "x.yaml:1:1: dataset: image files are read as 1 or 3 channels, the model wants 4x8x8");
}

TEST_F(ImageFolder, FoldersWithoutImages) {
  EXPECT_EQ(error(), "x.yaml:1:1: dataset: there is no image in '" + dir.path.string() +
                         "' (looked for png, jpg, jpeg, webp, bmp, tif, tiff, ppm, pgm)");
  add("cat/a.png");
  write_file(dir / "cat/a.txt", "");
  fs::create_directory(dir.path / "dog");
  EXPECT_EQ(error("extensions: [png, gif]"),
            "x.yaml:1:1: dataset: there is no image in the class folder " + name("dog") + " (looked for png, gif)");
  fs::remove(dir.path / "dog");
  add("b.png");
  EXPECT_EQ(error(), "x.yaml:1:1: dataset: '" + dir.path.string() +
                         "' has both images (b.png) and sub-folders (cat); images of a class belong in its sub-folder");
  EXPECT_NE(error("extensions: []").find("extensions: needs one at least"), std::string::npos);
}

TEST_F(ImageFolder, UnreadableFolder) {
  add("cat/a.png");
  fs::permissions(dir.path / "cat", fs::perms(0));
  const std::string message = without_privileges([&] { return error(); });
  fs::permissions(dir.path / "cat", fs::perms(0755));
  EXPECT_EQ(message, "x.yaml:1:1: dataset: cannot read the folder " + name("cat") + ": Permission denied");
}

TEST_F(ImageFolder, DamagedImagesAreNamedWhenRead) {
  add("a.png", 64, 64);
  const std::string whole = read_file(dir / "a.png");
  write_file(dir / "a.png", whole.substr(0, whole.size() / 2));
  EXPECT_NE(read_error().find(dir / "a.png"), std::string::npos) << read_error();
  write_file(dir / "a.png", "not an image");
  EXPECT_NE(read_error().find(dir / "a.png"), std::string::npos) << read_error();
  fs::remove(dir.path / "a.png");
  fs::create_symlink(dir.path / "gone.png", dir.path / "b.png");
  EXPECT_TRUE(error().ends_with("; left out: 1 linked to nothing (b.png)")) << error();
}

TEST_F(ImageFolder, ImagesOfTheWrongSize) {
  add("a.png", 6, 20);
  EXPECT_EQ(read_error("resize: none"), name("a.png") + " is 6x20, the model wants 8x8; set resize to smallest_side or stretch");
  EXPECT_EQ(read_error("crop: none"),
            name("a.png") + " is 6x20, 8x27 resized, the model wants 8x8; set crop to center or random, or resize to stretch");
  add("a.png", 8, 9);
  EXPECT_EQ(read_error("crop: none, resize: none"),
            name("a.png") + " is 8x9, the model wants 8x8; set crop to center or random, or resize to stretch");
  add("a.png", 8, 8);
  EXPECT_EQ(read_error("crop: none, resize: none"), "no error");
  add("a.png", 1, 9000);
  EXPECT_EQ(read_error("crop: center"),
            name("a.png") + " is 1x9000; so narrow an image would be more than 65536 pixels long when it is 8 by 8 at least");
}

TEST(CrawlTiles, AreRead) {
  const fs::path data = shared_data() / "crawl_tiles" / "images";
  if (!fs::exists(data)) GTEST_SKIP() << "no " << data << " (set BRUME_SHARED to where the shared data is)";
  const Opened set("{type: image_folder, resize: none, crop: none, path: " + data.string() + "}", {3, 32, 32});
  ASSERT_EQ(set.data->size(), 4168);
  for (int64_t i = 0; i < 4168; i += 41)
    for (const float v : set.read(i).pixels) ASSERT_TRUE(v >= -1 && v <= 1);
}

}  // namespace
}  // namespace brume::test
