// Text files that people write, whatever program they write them with.
#include "brume/files/text_file.h"

#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;
using Lines = std::vector<std::string_view>;

TEST(TextFile, LosesItsByteOrderMark) {
  const TemporaryFolder folder;
  EXPECT_EQ(read_text(folder.file("a.txt",
                                  "\xEF\xBB\xBF"
                                  "caf\xC3\xA9\n")),
            "caf\xC3\xA9\n");
  EXPECT_EQ(read_text(folder.file("b.txt", "")), "");
}

TEST(TextFile, Lines) {
  EXPECT_EQ(lines_of("a\nb\r\n\nc"), (Lines{"a", "b", "", "c"}));
  EXPECT_EQ(lines_of("a\n"), Lines{"a"});
  EXPECT_EQ(lines_of("\n"), Lines{""});
  EXPECT_EQ(lines_of(""), Lines{});
}

TEST(TextFile, Mistakes) {
  const TemporaryFolder folder;
  const auto said = [&](const std::string& path) { return error_of([&] { read_text(path); }, folder); };
  EXPECT_EQ(said(folder.file("none.txt")), "none.txt: cannot be opened: No such file or directory");
  EXPECT_EQ(said(folder.path() + "/."), ".: is a directory, not a file");
  EXPECT_EQ(said(folder.file("a.txt",
                             "\xEF\xBB\xBF"
                             "ab\xff")),
            "a.txt:1: byte 3 (0xff) is not UTF-8");
  EXPECT_EQ(said(folder.file("b.txt", "a\nb\n\n\xE9t\xE9\n")), "b.txt:4: byte 1 (0xe9) is not UTF-8");
  EXPECT_EQ(said(folder.file("c.txt", std::string("\xff\xfe"
                                                  "a\0",
                                                  4))),
            "c.txt:1: byte 1 (0xff) is not UTF-8");
}

}  // namespace
}  // namespace brume
