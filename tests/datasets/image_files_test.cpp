// What every data set of image files agrees on: which files are images, how they lie, which texts belong to them, what is left out.
#include "brume/core/image_files.h"

#include <algorithm>

#include "brume/image/image.h"
#include "support.h"
#include "support/file_builders.h"
#include "support/image_builders.h"
#include "support/tar_builder.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
constexpr ImageShape shape{3, 2, 3};

const ImageFiles& files_of(const Opened& set) { return dynamic_cast<const ImageFiles&>(*set.data); }

std::vector<long> values(const Picture& p) {
  std::vector<long> all;
  for (int64_t y = 0; y < shape.height; ++y)
    for (int64_t x = 0; x < shape.width; ++x)
      for (int64_t c = 0; c < shape.channels; ++c) all.push_back(p.value(shape, c, y, x));
  return all;
}

/// A folder, and the same files as a shard.
struct ImageSets : testing::Test {
  TempDir dir;
  std::vector<std::pair<std::string, std::string>> members;

  void add(const std::string& name, const std::string& content) {
    fs::create_directories((dir.path / "set" / name).parent_path());
    write_file(dir / ("set/" + name), content);
    members.emplace_back(name, content);
  }
  void add_image(const std::string& name) { add(name, files::png_of(files::samples_of(files::two_by_three(), 8, false))); }
  Opened image_folder(const std::string& more = "") const { return open("image_folder, path: " + dir / "set", more); }
  Opened captioned_folder(const std::string& more = "") const { return open("captioned_folder, path: " + dir / "set", more); }
  Opened webdataset(const std::string& more = "") const {
    auto sorted = members;  // the files of a sample follow one another
    std::sort(sorted.begin(), sorted.end());
    write_file(dir / "set.tar", tar_of(sorted));
    return open("webdataset, shards: " + dir / "set.tar", more);
  }
  static Opened open(const std::string& what, const std::string& more) { return Opened("{type: " + what + more + "}", shape); }
};

TEST_F(ImageSets, AreUprightInEveryFormat) {
  size_t count = 0;
  for (int orientation = 1; orientation <= 8; ++orientation)
    for (const auto& [name, bytes] : files::oriented_files(orientation)) {
      const std::string stem = std::to_string(1000 + count++);
      add(stem + fs::path(name).extension().string(), bytes);
      add(stem + ".txt", name);
    }
  const auto& pixels = files::two_by_three().pixels;
  const std::vector<long> wanted(pixels.begin(), pixels.end());
  const auto expect_upright = [&](const Opened& set) {
    ASSERT_EQ(set.data->size(), int64_t(count));
    for (int64_t i = 0; i < set.data->size(); ++i) {
      const Picture p = set.read(i);
      EXPECT_EQ(values(p), wanted) << p.caption;
      files_of(set).check_image(i);
    }
  };
  expect_upright(image_folder());
  expect_upright(captioned_folder());
  expect_upright(webdataset());
}

TEST_F(ImageSets, TakeExtensionsInAnyCase) {
  const Image image = files::two_by_three();
  const files::Samples s = files::samples_of(image, 8, false);
  const std::string bmp = "BM" + files::number(54 + 24, 4, false) + files::number(0, 4, false) + files::number(54, 4, false) +
                          files::number(40, 4, false) + files::number(3, 4, false) + files::number(2, 4, false) +
                          files::number(1, 2, false) + files::number(24, 2, false) + std::string(24, '\0') + std::string(24, '\x40');
  const std::vector<std::pair<std::string, std::string>> images = {{"PNG", files::png_of(s)},
                                                                   {"Tif", files::tiff_of(s, 1, true)},
                                                                   {"TIFF", files::tiff_of(s, 1, false)},
                                                                   {"WebP", files::webp_of(s, 1)},
                                                                   {"BMP", bmp},
                                                                   {"PpM", "P6 3 2 255\n" + std::string(18, 'A')}};
  for (size_t i = 0; i < images.size(); ++i) {
    add(std::to_string(i) + "." + images[i].first, images[i].second);
    add(std::to_string(i) + (i % 2 ? ".TXT" : ".txt"), "caption " + std::to_string(i));
  }
  EXPECT_EQ(image_folder().data->size(), 6);
  const auto expect_captions = [&](const Opened& set) {
    ASSERT_EQ(set.data->size(), 6);
    EXPECT_EQ(files_of(set).inventory().captions, 6);
    EXPECT_EQ(files_of(set).inventory().text(), "");
    for (int64_t i = 0; i < 6; ++i) {
      EXPECT_EQ(set.read(i).caption, "caption " + std::to_string(i));
      files_of(set).check_image(i);
    }
  };
  expect_captions(captioned_folder());
  expect_captions(webdataset());
}

TEST_F(ImageSets, LeaveHiddenFilesOut) {
  add_image("a.png");
  add("a.txt", "seen");
  for (const char* name : {".hidden.png", "._a.png", ".ipynb_checkpoints/a-checkpoint.png"}) add_image(name);
  EXPECT_EQ(files_of(image_folder()).inventory().text(), "3 hidden (first: ._a.png), 1 no image by its name (a.txt)");
  EXPECT_EQ(captioned_folder().data->size(), 1);
  EXPECT_EQ(files_of(captioned_folder()).inventory().text(), "3 hidden (first: ._a.png)");
  EXPECT_EQ(webdataset().data->size(), 1);
  EXPECT_EQ(files_of(webdataset()).inventory().text(), "3 hidden (first: ._a.png)");
}

TEST_F(ImageSets, TellWhatTheyLeaveOut) {
  add_image("a.png"), add_image("b.png");
  add("a.txt", "one\ntwo\n"), add("b.txt", "three"), add("c.txt", "alone"), add("notes.md", "x"), add("d.npy", "x");
  EXPECT_EQ(files_of(captioned_folder()).inventory().text(), "2 no image by its name (first: d.npy), 1 captions without an image (c.txt)");
  EXPECT_EQ(files_of(captioned_folder()).inventory().captions, 3);
  EXPECT_EQ(files_of(webdataset()).inventory().text(), "1 without an image (c), 2 of no known extension (first: d.npy)");
}

TEST_F(ImageSets, FollowLinksOnce) {
  add_image("cat/a.png"), add_image("dog/b.png");
  fs::create_directory(dir.path / "far");
  fs::copy(dir.path / "set/cat/a.png", dir.path / "far/c.png");
  fs::create_directory_symlink(dir.path / "far", dir.path / "set/cat/far");
  fs::create_directory_symlink(dir.path / "far", dir.path / "set/linked");
  fs::create_directory_symlink("..", dir.path / "set/dog/up");
  fs::create_directory_symlink(".", dir.path / "set/self");
  fs::create_symlink("gone.png", dir.path / "set/dog/gone.png");
  fs::create_symlink(dir.path / "far/c.png", dir.path / "set/dog/c.png");
  const Opened set = image_folder();
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"cat", "dog", "linked"}));
  EXPECT_EQ(set.data->size(), 5);
  EXPECT_EQ(files_of(set).inventory().text(), "2 linked back to a folder that holds it (first: self), 1 linked to nothing (dog/gone.png)");
  for (const char* text : {"cat/a", "far/c", "dog/b", "dog/c"})
    write_file((dir.path / (std::string(text).starts_with("far") ? "" : "set") / (std::string(text) + ".txt")).string(), "x");
  EXPECT_EQ(captioned_folder().data->size(), 5);
}

TEST_F(ImageSets, DropByteOrderMarks) {
  const std::string mark = "\xef\xbb\xbf";
  add_image("a.png");
  add("a.txt", mark + "red\n");
  EXPECT_EQ(captioned_folder().read(0).caption, "red");
  EXPECT_EQ(webdataset().read(0).caption, "red");
  members.back() = {"a.json", mark + "{\"caption\": \"blue\"}"};
  EXPECT_EQ(webdataset().read(0).caption, "blue");
  write_file(dir / "set/t.tsv", mark + "file\tcaption\na.png\tgreen\n");
  write_file(dir / "set/t.JSONL", mark + "{\"file\": \"a.png\", \"caption\": \"white\"}\n");
  for (const auto& [table, caption] : {std::pair("t.tsv", "green"), {"t.JSONL", "white"}})
    EXPECT_EQ(Opened("{type: captioned_folder, captions: " + dir / (std::string("set/") + table) + "}", shape).read(0).caption, caption);
}

TEST_F(ImageSets, AreCheckedWithoutDecoding) {
  add_image("a.png");
  const std::string whole = members[0].second;
  add("b.png", whole.substr(0, whole.size() - 20));
  add("c.ppm", "P6 2 9 255\n" + std::string(54, 'A'));
  const Opened set = image_folder(", resize: none");
  files_of(set).check_image(0);
  EXPECT_NE(error_of([&] { files_of(set).check_image(1); }).find("b.png: is a truncated PNG"), std::string::npos);
  const std::string small = "c.ppm' is 9x2, the model wants 2x3; set resize to smallest_side or stretch";
  EXPECT_NE(error_of([&] { files_of(set).check_image(2); }).find(small), std::string::npos);
  EXPECT_NE(error_of([&] { set.read(2); }).find(small), std::string::npos);
  EXPECT_FALSE(files_of(set).skips_errors());
  EXPECT_TRUE(files_of(image_folder(", on_error: skip")).skips_errors());
}

TEST_F(ImageSets, SkipWhatTheyCannotPair) {
  add_image("a.png"), add_image("b.png");
  add("b.txt", "said");
  const Opened set = captioned_folder(", on_error: skip");
  EXPECT_EQ(set.data->size(), 1);
  EXPECT_EQ(files_of(set).inventory().text(), "1 without a caption that can be read (a.png)");
  write_file(dir / "t.tsv", "file\tcaption\na.png\tone\ngone.png\ttwo\n");
  const Opened table("{type: captioned_folder, on_error: skip, path: " + dir / "set" + ", captions: " + dir / "t.tsv" + "}", shape);
  EXPECT_EQ(table.data->size(), 1);
  EXPECT_EQ(files_of(table).inventory().text(), "1 without an image file (gone.png)");
}

TEST(SharedFolders, AgreeOnImages) {
  const auto shared = [](const std::string& name) { return files::shared_file("cases/folders/" + name); };
  if (shared("any_case").empty()) GTEST_SKIP() << "no cases/folders (set BRUME_SHARED to where the shared data is)";
  const ImageShape small{3, 8, 8};
  for (const char* type : {"image_folder", "captioned_folder"})
    EXPECT_EQ(Opened("{type: " + std::string(type) + ", path: " + shared("any_case") + "}", small).data->size(), 8) << type;
  const Opened hidden("{type: captioned_folder, path: " + shared("hidden_captioned") + "}", small);
  EXPECT_EQ(hidden.data->size(), 3);
  EXPECT_EQ(files_of(hidden).inventory().text(), "1 hidden (.ipynb_checkpoints)");
  const Opened marked("{type: captioned_folder, path: " + shared("bom_captions") + "}", small);
  for (int64_t i = 0; i < 3; ++i) EXPECT_FALSE(marked.read(i).caption.starts_with("\xef")) << i;
}

}  // namespace
}  // namespace brume::test
