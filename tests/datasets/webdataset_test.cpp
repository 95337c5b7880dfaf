// Tar shards: every way in which names are written, any index, and archives that are broken.
#include <set>

#include "brume/files/tar.h"
#include "brume/image/image.h"
#include "support.h"
#include "support/tar_builder.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
constexpr ImageShape shape{3, 8, 8};

std::string member(const std::string& name, const std::string& content, char type = '0') { return tar_member(name, content, type); }
const std::string tail(1024, '\0');

class WebDataset : public testing::Test {
 protected:
  std::string png(uint8_t level) const {
    write_png(dir / "one.png", Image(8, 8, 3, level));
    return read_file(dir / "one.png");
  }
  std::string sample(const std::string& key, uint8_t level, const std::string& caption) const {
    return member(key + ".png", png(level)) + member(key + ".txt", caption);
  }
  std::string classed(const std::string& key, const std::string& name, const std::string& content) const {
    return member(key + ".png", png(1)) + member(key + name, content);
  }
  Opened open(const std::string& pattern, const std::string& more = "") const {
    return Opened("{type: webdataset, " + more + "shards: '" + (dir / pattern) + "'}", shape);
  }
  std::string error(const std::string& pattern) const {
    std::string said = error_of([&] { open(pattern); });
    const std::string folder = dir.path.string() + "/";
    for (size_t at; (at = said.find(folder)) != said.npos;) said.erase(at, folder.size());
    return said;
  }
  TempDir dir;
};

TEST_F(WebDataset, ShardsInOrderAndAnyIndex) {
  write_file(dir / "s-000.tar", sample("a/1", 1, "one\n") + sample("a/2", 2, "two") + tail);
  write_file(dir / "s-001.tar", member("3.json", "{\"caption\": \"three\"}") + member("3.png", png(3)) + member("4.png", png(4)) + tail);
  for (const char* pattern : {"s-{000..001}.tar", "s-*.tar", "s-{000,001}.tar", "s-00?.tar"}) {
    const Opened set = open(pattern);
    ASSERT_EQ(set.data->size(), 4) << pattern;
    const std::vector<std::string> captions = {"one", "two", "three", ""};
    for (const int64_t i : {3, 1, 0, 2}) {
      EXPECT_EQ(set.read(i).caption, captions[size_t(i)]) << pattern;
      EXPECT_EQ(set.read(i).value(shape, 1, 4, 4), i + 1) << pattern;
    }
  }
  expect_same_on_8_threads(open("s-*.tar"), 4);
}

TEST_F(WebDataset, ClassesAreNumbersOrNames) {
  write_file(dir / "numbers.tar", classed("a", ".cls", "2\n") +
                                      classed("b", ".CLS",
                                              "\xef\xbb\xbf"
                                              "0") +
                                      member("c.png", png(1)) + tail);
  const Opened numbers = open("numbers.tar");
  EXPECT_EQ(numbers.data->classes(), (std::vector<std::string>{"0", "1", "2"}));
  EXPECT_EQ(numbers.read(0).label, 2);
  EXPECT_EQ(numbers.read(1).label, 0);
  EXPECT_EQ(numbers.read(2).label, -1);
  EXPECT_EQ(open("numbers.tar", "classes: [x, y, z], ").data->classes(), (std::vector<std::string>{"x", "y", "z"}));
  const std::string start = "x.yaml:1:1: dataset: ";
  const auto said = [&](const std::string& pattern, const std::string& more) {
    std::string text = error_of([&] { open(pattern, more); });
    for (size_t at; (at = text.find(dir.path.string() + "/")) != text.npos;) text.erase(at, dir.path.string().size() + 1);
    return text;
  };
  EXPECT_EQ(said("numbers.tar", "classes: [x, y], "), start + "'numbers.tar' has the class 2, but 'classes' names 2");
  write_file(dir / "names.tar", classed("a", ".cls", "dog") + classed("b", ".cls", "cat\r\n") + tail);
  EXPECT_EQ(open("names.tar").data->classes(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(open("names.tar").read(0).label, 1);
  EXPECT_EQ(open("names.tar", "classes: [dog, cow, cat], ").read(1).label, 2);
  EXPECT_EQ(said("names.tar", "classes: [dogs, cat], "), start + "names.tar:a.cls: 'dog' is no class; did you mean 'dogs'?");
  write_file(dir / "both.tar", classed("a", ".cls", "dog") + classed("b", ".cls", "1") + tail);
  EXPECT_EQ(said("both.tar", ""), start + "'both.tar' has classes by number and by name ('dog'); one of the two is needed");
  write_file(dir / "minus.tar", classed("a", ".cls", "-1") + tail);
  EXPECT_EQ(said("minus.tar", ""), start + "minus.tar:a.cls: -1 is no class (0 to 999999)");
  int opened = 0;
  for (const char* split : {"train", "test"})
    for (const char* held_out : {"0.1", "0.5", "0.9"}) {
      const std::string more = std::string("split: ") + split + ", held_out: " + held_out + ", ";
      if (error_of([&] { open("names.tar", more); }) != "no error") continue;  // no sample of this split
      EXPECT_EQ(open("names.tar", more).data->classes().size(), 2u) << more;
      ++opened;
    }
  EXPECT_GE(opened, 3);  // each share leaves a sample in one of its splits
  write_file(dir / "empty.tar", classed("a", ".cls", " ") + tail);
  EXPECT_EQ(said("empty.tar", ""), start + "empty.tar:a.cls: is empty");
}

TEST_F(WebDataset, ClassesAreOfAKeyOfTheJson) {
  write_file(dir / "json.tar",
             classed("a", ".json", R"({"kind": "dog"})") + classed("b", ".json", R"({"kind": "cat", "caption": "meow"})") + tail);
  const Opened json = open("json.tar", "class_key: kind, ");
  EXPECT_EQ(json.data->classes(), (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(json.read(0).caption, "");
  EXPECT_EQ(json.read(1).caption, "meow");
  EXPECT_EQ(open("json.tar").data->classes().size(), 0u);
  EXPECT_NE(error_of([&] { open("json.tar").read(0); }).find("json.tar:a.json: there is no 'caption'"), std::string::npos);
}

TEST_F(WebDataset, SplitsByKey) {
  std::string bytes;
  for (int i = 0; i < 50; ++i) bytes += sample(std::to_string(i), 7, std::to_string(i));
  write_file(dir / "s.tar", bytes + tail);
  std::set<std::string> seen;
  for (const char* split : {"train", "test"}) {
    const Opened set = open("s.tar", std::string("held_out: 0.4, split: ") + split + ", ");
    EXPECT_GT(set.data->size(), 5);
    for (int64_t i = 0; i < set.data->size(); ++i) EXPECT_TRUE(seen.insert(set.read(i).caption).second);
  }
  EXPECT_EQ(seen.size(), 50u);
}

// Archives of the tar program, in its three formats, with names longer than a header holds.
TEST_F(WebDataset, LongNames) {
  if (std::system("tar --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "there is no tar";
  const std::string key = "data/" + std::string(90, 'x') + "/" + std::string(60, 'y');
  fs::create_directories((dir.path / key).parent_path());
  write_file(dir / (key + ".png"), png(9));
  write_file(dir / (key + ".txt"), "long");
  for (const std::string format : {"ustar", "gnu", "pax"}) {
    const std::string command = "cd " + dir.path.string() + " && tar --format=" + format + " -cf " + format + ".tar data";
    ASSERT_EQ(std::system(command.c_str()), 0);
    const Opened set = open(format + ".tar");
    ASSERT_EQ(set.data->size(), 1) << format;
    EXPECT_EQ(set.read(0).caption, "long") << format;
    const std::string bytes = read_file(dir / (format + ".tar"));
    const auto entries = read_tar(bytes, "x");
    ASSERT_EQ(entries.size(), 2u) << format;
    EXPECT_TRUE(entries[0].name == key + ".png" || entries[1].name == key + ".png") << format << " " << entries[0].name;
  }
}

TEST_F(WebDataset, Errors) {
  const std::string whole = sample("1", 1, "one") + tail, start = "x.yaml:1:1: dataset: ";
  EXPECT_EQ(error("none.tar"), start + "there is no shard 'none.tar'");
  EXPECT_EQ(error("none*.tar"), start + "no shard is called 'none*.tar'");
  EXPECT_EQ(error("s{3..1}.tar"), start + "'{3..1}' is no range; {000..010} is one");
  write_file(dir / "cut.tar", whole.substr(0, 560));
  EXPECT_EQ(error("cut.tar"), start + "cut.tar: is cut short: '1.png' has " + std::to_string(png(1).size()) + " bytes, and 48 are left");
  write_file(dir / "head.tar", whole.substr(0, 300));
  EXPECT_EQ(error("head.tar"), start + "head.tar: is cut short: it ends inside the header at byte 0");
  std::string flipped = whole;
  flipped[3] = 'q';
  write_file(dir / "flipped.tar", flipped);
  EXPECT_EQ(error("flipped.tar"), start + "flipped.tar: is damaged: the header's checksum is wrong (at byte 0)");
  write_file(dir / "text.tar", std::string(2000, 'w'));
  EXPECT_EQ(error("text.tar"), start + "text.tar: is no tar archive, or damaged: the checksum 'wwwwwwww' is no octal number (at byte 0)");
  write_file(dir / "texts.tar", member("a.txt", "alone") + tail);
  EXPECT_EQ(error("texts.tar"), start + "'texts.tar' has no image (looked for .png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff, .ppm, .pgm)");
  write_file(dir / "bad.tar", member("k.png", png(1)) + member("k.txt", "gr\xfcn") + member("l.png", "no image") + tail);
  const Opened bad = open("bad.tar");
  EXPECT_NE(error_of([&] { bad.read(0); }).find("bad.tar:k.txt: byte 3 is not UTF-8"), std::string::npos);
  EXPECT_NE(error_of([&] { bad.read(1); }).find("bad.tar:l.png: is no image brume reads"), std::string::npos);
}

// Every archive that is cut, or has a byte changed, is read or refused: never more than is there.
TEST_F(WebDataset, BrokenArchivesAreReadOrRefused) {
  const std::string whole = sample("1", 1, "one") + member("././@LongLink", std::string(120, 'n') + ".png", 'L') + member("short", png(2)) +
                            member("p", "30 path=" + std::string(21, 'z') + "\n", 'x') + member("q.txt", "t") + tail;
  ASSERT_EQ(read_tar(whole, "x").size(), 4u);
  const auto read = [](const std::string& bytes) {
    try {
      for (const TarEntry& e : read_tar(bytes, "x")) ASSERT_LE(e.offset + e.size, bytes.size());
    } catch (const ConfigError&) {
    }
  };
  for (size_t cut = 0; cut < whole.size(); cut += 37) read(whole.substr(0, cut));
  for (size_t at = 0; at < whole.size(); at += 3) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x15);
    read(changed);
  }
}

}  // namespace
}  // namespace brume::test
