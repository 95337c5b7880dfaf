// What the documents say of the tree is so: paths and files exist, and the table of concepts has every kind of plugin.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "support/process.h"
#include "support/registry.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
const fs::path root = BRUME_SOURCE_DIR;

/// The documents of the project as it is, those of its examples as well; the change log names what is gone.
std::vector<fs::path> documents() {
  std::vector<fs::path> all{root / "README.md", root / "CONTRIBUTING.md"};
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs"))
    if (entry.path().extension() == ".md") all.push_back(entry.path());
  return all;
}

/// All that `pattern`'s group 1 finds, without the full stop that ends a sentence.
std::set<std::string> found(const std::string& text, const std::regex& pattern) {
  std::set<std::string> all;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), pattern); it != std::sregex_iterator(); ++it) {
    std::string word = (*it)[1];
    while (word.ends_with('.')) word.pop_back();
    all.insert(word);
  }
  return all;
}

/// Names of the source files of the project.
const std::set<std::string>& sources() {
  static const std::set<std::string> all = [] {
    std::set<std::string> names;
    for (const char* folder : {"framework", "plugins", "tools", "tests", "shims", "docs"})
      for (const auto& entry : fs::recursive_directory_iterator(root / folder)) names.insert(entry.path().filename().string());
    return names;
  }();
  return all;
}

TEST(Documents, PathsExist) {
  static const std::regex path(R"((?:^|[^\w/.$-])((?:framework|plugins|configs|tools|tests|docs|shims|cmake)/[\w./-]*))");
  size_t seen = 0;
  for (const fs::path& document : documents())
    for (const std::string& named : found(read_text(document), path)) {
      ++seen;
      EXPECT_TRUE(fs::exists(root / named)) << fs::relative(document, root) << " names " << named;
    }
  EXPECT_GT(seen, 30u);
}

TEST(Documents, LinksLeadSomewhere) {
  static const std::regex link(R"(\[[^\]\n]+\]\((?!https?:)([^)#:\s]+)[^)]*\))");
  for (const fs::path& document : documents())
    for (const std::string& target : found(read_text(document), link))
      EXPECT_TRUE(fs::exists(document.parent_path() / target)) << fs::relative(document, root) << " links to " << target;
}

/// A source file by its name alone, by its room, or as it is included.
bool is_source(const std::string& name) {
  if (name.find('/') == std::string::npos) return sources().contains(name);
  for (const char* below : {"", "framework", "framework/brume", "plugins", "tools"})
    if (fs::exists(root / below / name)) return true;
  return false;
}

TEST(Documents, SourceFilesExist) {
  static const std::regex file(R"((?:^|[^\w/.$-])([\w/]+\.(?:h|cpp)\b))");
  size_t seen = 0;
  for (const fs::path& document : documents())
    for (const std::string& named : found(read_text(document), file)) {
      ++seen;
      if (named.starts_with("ATen/") || named.starts_with("torch/")) continue;  // LibTorch's
      EXPECT_TRUE(is_source(named)) << fs::relative(document, root) << " names " << named;
    }
  EXPECT_GT(seen, 10u);
}

TEST(Documents, TheTableOfConceptsHasEveryKind) {
  static const std::regex row(R"(\n\| `\w+`[^|\n]*\| `(\w+)` \|)");
  const std::vector<std::string> kinds = builtins().kinds();
  EXPECT_EQ(found(read_text(root / "docs/design.md"), row), std::set<std::string>(kinds.begin(), kinds.end()));
}

/// Characters, not bytes.
size_t length(const std::string& line) {
  return size_t(std::count_if(line.begin(), line.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

TEST(Documents, TheDesignHasLinesUnder140) {
  for (const char* name : {"docs/design.md", "docs/decisions.md"}) {
    std::istringstream text(read_text(root / name));
    std::string line;
    for (int number = 1; std::getline(text, line); ++number) EXPECT_LT(length(line), 140u) << name << ":" << number;
  }
}

}  // namespace
}  // namespace brume::test
