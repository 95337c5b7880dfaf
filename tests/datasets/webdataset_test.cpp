// Tar shards: every way in which names are written, any index, and archives that are broken.
#include <set>

#include "brume/files/tar.h"
#include "brume/image/image.h"
#include "support.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
constexpr ImageShape shape{3, 8, 8};

/// A ustar member.
std::string member(const std::string& name, const std::string& content, char type = '0') {
  std::string header(512, '\0');
  const auto put = [&](size_t at, const std::string& text) { header.replace(at, text.size(), text); };
  const auto octal = [](size_t value, int digits) {
    std::string text(size_t(digits), '0');
    for (size_t i = text.size(); value > 0; value /= 8) text[--i] = char('0' + value % 8);
    return text;
  };
  put(0, name), put(100, "0000644"), put(124, octal(content.size(), 11)), put(136, octal(0, 11)), put(148, "        ");
  header[156] = type;
  put(257, "ustar"), put(263, "00");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<uint8_t>(c);
  put(148, octal(sum, 6)), header[154] = '\0', header[155] = ' ';
  return header + content + std::string((512 - content.size() % 512) % 512, '\0');
}
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
  EXPECT_EQ(error("texts.tar"), start + "'texts.tar' has no image (looked for .jpg, .jpeg, .png and .webp)");
  write_file(dir / "bad.tar", member("k.png", png(1)) + member("k.txt", "gr\xfcn") + member("l.png", "no image") + tail);
  const Opened bad = open("bad.tar");
  EXPECT_NE(error_of([&] { bad.read(0); }).find("bad.tar:k.txt: byte 3 is not UTF-8"), std::string::npos);
  EXPECT_NE(error_of([&] { bad.read(1); }).find("bad.tar:l: is no image brume reads"), std::string::npos);
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
