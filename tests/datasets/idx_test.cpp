// idx files: every byte arrives, gzip or not, and what is wrong with a file is said exactly.
#include <zlib.h>

#include "support.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

std::string big_endian(uint32_t n) {
  return {static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
}
std::string idx(std::vector<uint32_t> sizes, const std::string& bytes) {
  std::string file = {0, 0, 8, static_cast<char>(sizes.size())};
  for (const uint32_t n : sizes) file += big_endian(n);
  return file + bytes;
}

std::string gzip(const std::string& bytes) {
  const TempDir dir;
  gzFile out = gzopen((dir / "x").c_str(), "wb");
  gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(out);
  return read_file(dir / "x");
}

/// Pixel (y, x) of image i has the value 10i + 4y + x.
std::string counting_images(uint32_t count, uint32_t height, uint32_t width) {
  std::string bytes;
  for (uint32_t i = 0; i < count; ++i)
    for (uint32_t y = 0; y < height; ++y)
      for (uint32_t x = 0; x < width; ++x) bytes += static_cast<char>(10 * i + 4 * y + x);
  return idx({count, height, width}, bytes);
}

constexpr ImageShape shape{1, 3, 4};

/// Five images of 3x4 with the labels 0 2 1 2 0, as files.
struct Idx : testing::Test {
  TempDir dir;
  std::string images = dir / "images", labels = dir / "labels";
  Idx() {
    write_file(images, counting_images(5, 3, 4));
    write_file(labels, idx({5}, {0, 2, 1, 2, 0}));
  }
  std::string yaml(const std::string& options = "") const {
    return "{type: idx, images: " + images + ", labels: " + labels + (options.empty() ? "" : ", " + options) + "}";
  }
  std::string error(const std::string& options = "", ImageShape wanted = shape) const { return open_error(yaml(options), wanted); }
};

TEST_F(Idx, EveryByteArrives) {
  const Opened set(yaml(), shape);
  EXPECT_EQ(set.data->size(), 5);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"0", "1", "2"}));
  const std::vector<int64_t> expected = {0, 2, 1, 2, 0};
  for (int64_t i = 0; i < 5; ++i) {
    const Picture p = set.read(i);
    EXPECT_EQ(p.label, expected[static_cast<size_t>(i)]);
    EXPECT_EQ(p.caption, "");
    for (int64_t y = 0; y < 3; ++y)
      for (int64_t x = 0; x < 4; ++x) EXPECT_EQ(p.value(shape, 0, y, x), 10 * i + 4 * y + x);
  }
}

TEST_F(Idx, BlackIsMinusOneAndWhiteIsOne) {
  write_file(images, idx({1, 1, 3}, {'\0', '\x7f', '\xff'}));
  const Opened set("{type: idx, images: " + images + "}", {1, 1, 3});
  EXPECT_EQ(set.read(0).pixels, (std::vector<float>{-1, 127 / 127.5f - 1, 1}));
  EXPECT_EQ(set.read(0).label, -1);
  EXPECT_TRUE(set.data->classes().empty());
}

TEST_F(Idx, GzipIsKnownByContent) {
  const Opened plain(yaml(), shape);
  write_file(images, gzip(counting_images(5, 3, 4)));
  write_file(labels, gzip(idx({5}, {0, 2, 1, 2, 0})));
  const Opened packed(yaml(), shape);
  for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(plain.read(i), packed.read(i));
}

TEST_F(Idx, LimitAndClassNames) {
  const Opened set(yaml("limit: 2, classes: [shirt, shoe, bag]"), shape);
  EXPECT_EQ(set.data->size(), 2);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"shirt", "shoe", "bag"}));
  EXPECT_EQ(Opened(yaml("limit: 99"), shape).data->size(), 5);
  EXPECT_EQ(Opened(yaml("limit: 1"), shape).data->classes().size(), 3u) << "the classes do not depend on how many are used";
  EXPECT_THROW(set.read(2), std::out_of_range);
  EXPECT_THROW(set.read(-1), std::out_of_range);
}

TEST_F(Idx, OnlySomeClassesInAnotherOrder) {
  const Opened all(yaml(), shape), set(yaml("classes: [shirt, shoe, bag], only: [bag, shirt]"), shape);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"bag", "shirt"}));
  const std::vector<int64_t> kept = {0, 1, 3, 4}, numbers = {1, 0, 0, 1};
  ASSERT_EQ(set.data->size(), 4);
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(set.read(i).pixels, all.read(kept[size_t(i)]).pixels);
    EXPECT_EQ(set.read(i).label, numbers[size_t(i)]);
  }
  EXPECT_EQ(Opened(yaml("only: ['1'], limit: 3"), shape).data->size(), 1);
  const std::string begins = "x.yaml:1:1: dataset: only: ";
  EXPECT_EQ(error("only: ['3']"), begins + "there is no class '3'; known: 0, 1, 2");
  EXPECT_EQ(error("classes: [shirt, shoe, bag, hat], only: [hat]"), begins + "'" + labels + "' has no image of these classes");
}

TEST_F(Idx, MistakesInTheChoiceAreFoundWithoutTheFiles) {
  const auto read = [](const std::string& yaml) {
    return error_of([&] { create_deferred<Dataset>(builtins(), parse_yaml(yaml, "x.yaml")); });
  };
  EXPECT_EQ(read("{type: idx, images: a, labels: b, classes: [shirt, shoe, bag], only: [shoes, bag, bag]}"),
            "x.yaml:1:70: dataset: only: there is no class 'shoes'; did you mean 'shoe'?");
  EXPECT_EQ(read("{type: idx, images: a, labels: b, only: ['1', '1']}"), "x.yaml:1:41: dataset: only: '1' is given twice");
}

TEST_F(Idx, PadPutsBlackAroundInEveryChannel) {
  const ImageShape wanted{3, 6, 8};
  const Opened set(yaml("fit: pad"), wanted);
  const Picture p = set.read(2);
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t y = 0; y < 6; ++y)
      for (int64_t x = 0; x < 8; ++x) {
        const bool inside = y >= 1 && y < 4 && x >= 2 && x < 6;
        EXPECT_EQ(p.value(wanted, c, y, x), inside ? 20 + 4 * (y - 1) + x - 2 : 0);
      }
}

TEST_F(Idx, ResizeScales) {
  write_file(images, idx({1, 4, 4}, {0, 40, 100, 100, 80, 120, 100, 100, 7, 7, 9, 9, 7, 7, 9, 9}));
  const ImageShape half{1, 2, 2};
  const Picture p = Opened("{type: idx, fit: resize, images: " + images + "}", half).read(0);
  EXPECT_EQ(p.value(half, 0, 0, 0), 60);
  EXPECT_EQ(p.value(half, 0, 0, 1), 100);
  EXPECT_EQ(p.value(half, 0, 1, 0), 7);
  EXPECT_EQ(p.value(half, 0, 1, 1), 9);
  const ImageShape twice{3, 8, 8};
  const Picture q = Opened("{type: idx, fit: resize, images: " + images + "}", twice).read(0);
  EXPECT_EQ(q.value(twice, 2, 7, 7), 9);
}

TEST_F(Idx, FlipMirrorsHalfOfTheDraws) {
  const Opened set(yaml("flip: true"), shape);
  const Picture plain = Opened(yaml(), shape).read(3);
  int mirrored = 0;
  for (uint64_t draw = 0; draw < 1000; ++draw) {
    const Picture p = set.read(3, draw);
    EXPECT_EQ(p, set.read(3, draw));
    if (p == plain) continue;
    ++mirrored;
    for (int64_t y = 0; y < 3; ++y)
      for (int64_t x = 0; x < 4; ++x) ASSERT_EQ(p.value(shape, 0, y, x), plain.value(shape, 0, y, 3 - x));
  }
  EXPECT_NEAR(mirrored, 500, 80);
}

TEST_F(Idx, EightThreadsReadWhatOneReads) {
  write_file(images, counting_images(20, 3, 4));
  expect_same_on_8_threads(Opened("{type: idx, flip: true, images: " + images + "}", shape), 20);
}

TEST_F(Idx, MissingFiles) {
  EXPECT_EQ(open_error("idx", shape), "x.yaml:1:1: dataset: missing 'images' (the idx file of the images)");
  EXPECT_EQ(open_error("{type: idx, images: /nowhere/a.gz}", shape), "x.yaml:1:1: dataset: there is no file '/nowhere/a.gz'");
  EXPECT_EQ(open_error("{type: idx, images: nowhere/a.gz}", shape),
            "x.yaml:1:1: dataset: there is no file 'nowhere/a.gz' in " + fs::current_path().string());
  fs::remove(labels);
  EXPECT_EQ(error(), "x.yaml:1:1: dataset: there is no file '" + labels + "'");
  EXPECT_EQ(open_error("{type: idx, images: " + dir.path.string() + "}", shape),
            "x.yaml:1:1: dataset: '" + dir.path.string() + "' is a folder, not a file");
}

TEST_F(Idx, UnreadableFile) {
  fs::permissions(images, fs::perms(0));
  EXPECT_EQ(without_privileges([&] { return error(); }), "x.yaml:1:1: dataset: cannot read '" + images + "': Permission denied");
}

TEST_F(Idx, WrongMagic) {
  const std::string begins = "x.yaml:1:1: dataset: '" + images + "' is not an idx file of images: it starts with ";
  write_file(images, "PNG?\x01\x02");
  EXPECT_EQ(error(), begins + "50 4e 47 3f, not with 00 00 08 03");
  write_file(images, idx({5}, "12345"));
  EXPECT_EQ(error(), begins + "00 00 08 01, not with 00 00 08 03");
  write_file(images, "");
  EXPECT_EQ(error(), begins + "nothing, not with 00 00 08 03");
  write_file(images, counting_images(5, 3, 4));
  write_file(labels, counting_images(5, 3, 4));
  EXPECT_EQ(error(),
            "x.yaml:1:1: dataset: '" + labels + "' is not an idx file of labels: it starts with 00 00 08 03, not with 00 00 08 01");
}

TEST_F(Idx, WrongLength) {
  const std::string begins = "x.yaml:1:1: dataset: '" + images + "' has the wrong length: its header ";
  const std::string whole = counting_images(5, 3, 4);
  write_file(images, whole.substr(0, 70));
  EXPECT_EQ(error(), begins + "says 5x3x4, which takes 76 bytes, found 70");
  write_file(images, whole + "?");
  EXPECT_EQ(error(), begins + "says 5x3x4, which takes 76 bytes, found 77");
  write_file(images, gzip(whole.substr(0, 70)));
  EXPECT_EQ(error(), begins + "says 5x3x4, which takes 76 bytes, found 70");
  write_file(images, whole.substr(0, 9));
  EXPECT_EQ(error(), begins + "alone takes 16 bytes, found 9");
  write_file(images, idx({0xffffffff, 0xffffffff, 0xffffffff}, "abc"));
  EXPECT_EQ(error(), begins + "says 4294967295x4294967295x4294967295, which takes 9223372036854775823 bytes, found 19");
}

TEST_F(Idx, BrokenGzip) {
  const std::string whole = gzip(counting_images(5, 3, 4)), begins = "x.yaml:1:1: dataset: '" + images + "' is a broken gzip stream: ";
  write_file(images, whole.substr(0, whole.size() - 12));
  EXPECT_EQ(error(), begins + "unexpected end of file");
  std::string damaged = whole;
  damaged[damaged.size() - 6] ^= 1;  // of the checksum
  write_file(images, damaged);
  EXPECT_EQ(error(), begins + "incorrect data check");
  damaged = whole;
  damaged[2] = 9;
  write_file(images, damaged);
  EXPECT_EQ(error(), begins + "unknown compression method");
}

TEST_F(Idx, FilesThatDoNotBelongTogether) {
  write_file(labels, idx({4}, {0, 1, 2, 3}));
  EXPECT_EQ(error(), "x.yaml:1:1: dataset: '" + images + "' has 5 images, '" + labels + "' has 4 labels");
  write_file(labels, idx({5}, {0, 1, 7, 3, 7}));
  EXPECT_EQ(error("classes: [a, b, c]"), "x.yaml:1:1: dataset: '" + labels + "' has the label 7 (image 2), but 'classes' names 3");
  write_file(images, idx({0, 3, 4}, ""));
  EXPECT_EQ(error(), "x.yaml:1:1: dataset: '" + images + "' holds no images");
  EXPECT_EQ(open_error("{type: idx, images: a, classes: [a]}", shape), "x.yaml:1:33: dataset: classes: needs 'labels'");
}

TEST_F(Idx, TheFirstFolderThatHasTheImagesIsRead) {
  const auto with = [&](const std::string& folders) { return "{type: idx, images: images, labels: labels, folders: " + folders + "}"; };
  const std::string here = dir.path.string();
  const Opened set(with("[/nowhere, " + here + ", /nowhere/else]"), shape);
  EXPECT_EQ(set.data->size(), 5);
  EXPECT_EQ(set.read(1).label, 2);
  EXPECT_EQ(Opened("{type: idx, folders: [/nowhere], images: " + images + "}", shape).data->size(), 5) << "an absolute path is itself";
  EXPECT_EQ(open_error(with("[/nowhere, /nowhere/else]"), shape), "x.yaml:1:1: dataset: there is no file '/nowhere/images'");
}

TEST_F(Idx, ShapesThatDiffer) {
  const std::string begins = "x.yaml:1:1: dataset: the images of '" + images + "' are 1x3x4, the model wants ";
  EXPECT_EQ(error("", {1, 32, 32}), begins + "1x32x32; set fit to pad or resize");
  EXPECT_EQ(error("", {3, 3, 4}), begins + "3x3x4; set fit to pad or resize");
  EXPECT_EQ(error("fit: pad", {1, 8, 2}), begins + "1x8x2; fit: pad cannot shrink them");
  EXPECT_EQ(error("fit: resize", {2, 8, 8}),
            "x.yaml:1:1: dataset: idx images are grey: 1 channel, or repeated over 3; the model wants 2x8x8");
  EXPECT_EQ(error("fit: pda").substr(0, 7), "x.yaml:");
}

TEST(FashionMnist, IsReadWhole) {
  const fs::path data = shared_data() / "fashion_mnist";
  if (!fs::exists(data)) GTEST_SKIP() << "no " << data << " (set BRUME_SHARED to where the shared data is)";
  const ImageShape wanted{1, 32, 32};
  const Opened set("{type: idx, fit: pad, images: " + (data / "t10k-images-idx3-ubyte.gz").string() +
                       ", labels: " + (data / "t10k-labels-idx1-ubyte.gz").string() + "}",
                   wanted);
  ASSERT_EQ(set.data->size(), 10000);
  EXPECT_EQ(set.data->classes().size(), 10u);
  std::vector<int> counts(10, 0);
  double sum = 0;
  for (int64_t i = 0; i < 10000; ++i) {
    const Picture p = set.read(i);
    ++counts.at(static_cast<size_t>(p.label));
    for (const float v : p.pixels) sum += (static_cast<double>(v) + 1) / 2;
  }
  EXPECT_EQ(counts, std::vector<int>(10, 1000));
  EXPECT_NEAR(sum / (10000 * 28 * 28), 0.2868, 0.0005);  // the mean of the published test set
}

}  // namespace
}  // namespace brume::test
