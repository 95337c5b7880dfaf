// What CONTRIBUTING.md says of every source: at most 400 lines, functions of at most 50 lines, lines of at most 140 characters, no words
// that need another sentence to be understood.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Source {
  std::string name, text;
};

const std::vector<Source>& sources() {
  static const std::vector<Source> all = [] {
    std::vector<Source> found;
    for (const char* folder : {"framework", "plugins", "tools", "shims", "tests"})
      for (const auto& entry : fs::recursive_directory_iterator(fs::path(BRUME_SOURCE_DIR) / folder)) {
        if (entry.path().extension() != ".h" && entry.path().extension() != ".cpp") continue;
        std::ifstream in(entry.path());
        found.push_back({fs::relative(entry.path(), BRUME_SOURCE_DIR).string(), std::string(std::istreambuf_iterator<char>(in), {})});
      }
    return found;
  }();
  return all;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines(1);
  for (const char c : text) {
    if (c == '\n') lines.emplace_back();
    if (c != '\n') lines.back() += c;
  }
  if (lines.back().empty()) lines.pop_back();
  return lines;
}

size_t characters(const std::string& line) {
  return size_t(std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

/// Returns the code with every character of comments and literals but the line ends as a space.
std::string bare(const std::string& code) {
  std::string out = code;
  const auto blank = [&](size_t from, size_t to) {
    to = std::min(to, out.size());
    for (size_t i = from; i < to; ++i)
      if (out[i] != '\n') out[i] = ' ';
    return to;
  };
  for (size_t i = 0; i < code.size();) {
    const std::string_view rest = std::string_view(code).substr(i);
    const bool digit_mark = rest[0] == '\'' && i > 0 && std::isalnum(static_cast<unsigned char>(code[i - 1]));  // 1'000
    if (rest.starts_with("//")) {
      i = blank(i, std::min(code.find('\n', i), code.size()));
    } else if (rest.starts_with("/*")) {
      i = blank(i, code.find("*/", i) + 2);
    } else if (rest.starts_with("R\"")) {
      const std::string end = ")" + std::string(rest.substr(2, rest.find('(') - 2)) + "\"";
      i = blank(i, code.find(end, i) + end.size());
    } else if (rest[0] == '"' || (rest[0] == '\'' && !digit_mark)) {
      size_t end = i + 1;
      while (end < code.size() && code[end] != rest[0]) end += code[end] == '\\' ? 2 : 1;
      i = blank(i, end + 1);
    } else {
      ++i;
    }
  }
  return out;
}

struct Function {
  std::string head;
  int64_t first = 1, lines = 0;
};

/// Returns the functions of a source: blocks in braces that follow a parenthesis, within namespaces and classes alone.
std::vector<Function> functions_of(const std::string& text) {
  static const std::regex access(R"(^(public|private|protected)\s*$)");
  static const std::regex scope(R"(\b(namespace|class|struct|union|enum|extern)\b[^()=]*$)");
  const std::string code = bare(text);
  std::vector<Function> found, open;
  std::string head;
  int64_t line = 1, begin = 1, within = 0;  // `within`: blocks around, apart from namespaces and classes
  std::vector<bool> blocks;                 // true for a namespace or a class
  for (const char c : code) {
    if (c == '\n') ++line;
    if (c == '{') {
      const bool is_scope = within == 0 && std::regex_search(head, scope);
      if (!is_scope && within++ == 0) open.push_back({head, begin, 0});
      blocks.push_back(is_scope);
    }
    if (c == '}' && !blocks.empty()) {
      if (!blocks.back() && --within == 0) {
        open.back().lines = line - open.back().first + 1;
        if (open.back().head.find('(') != std::string::npos) found.push_back(open.back());
        open.pop_back();
      }
      blocks.pop_back();
    }
    if (within == 0 && (c == '{' || c == '}' || c == ';' || (c == ':' && std::regex_match(head, access))))
      head.clear();
    else if (within == 0)
      head += head.empty() && std::isspace(static_cast<unsigned char>(c)) ? "" : std::string(1, c);
    if (head.empty()) begin = line;
  }
  return found;
}

TEST(Sources, HaveAtMost400Lines) {
  EXPECT_GT(sources().size(), 900u);
  for (const Source& s : sources()) EXPECT_LE(lines_of(s.text).size(), 400u) << s.name;
}

TEST(Sources, HaveLinesOfAtMost140Characters) {
  for (const Source& s : sources()) {
    const std::vector<std::string> lines = lines_of(s.text);
    for (size_t i = 0; i < lines.size(); ++i) EXPECT_LE(characters(lines[i]), 140u) << s.name << ":" << i + 1;
  }
}

TEST(Sources, HaveFunctionsOfAtMost50Lines) {
  size_t count = 0;
  for (const Source& s : sources())
    for (const Function& f : functions_of(s.text)) {
      ++count;
      EXPECT_LE(f.lines, 50) << s.name << ":" << f.first << ": " << f.head;
    }
  EXPECT_GT(count, 5000u);
}

TEST(Sources, SayWhatIsMeant) {
  for (std::string phrase : {"_is_told", "_are_told", "_there_is_none", "_anew", "_beside", "_by_itself", "_in_the_place_of"}) {
    std::replace(phrase.begin(), phrase.end(), '_', ' ');
    for (const Source& s : sources())
      for (size_t at = s.text.find(phrase); at != std::string::npos; at = s.text.find(phrase, at + 1)) {
        const bool longer = std::isalpha(static_cast<unsigned char>(s.text[std::min(at + phrase.size(), s.text.size() - 1)]));  // "besides"
        EXPECT_TRUE(longer) << s.name << ":" << std::count(s.text.begin(), s.text.begin() + int64_t(at), '\n') + 1 << ":" << phrase;
      }
  }
}

TEST(Sources, SpellTheKeysOfModelFilesInOnePlace) {
  const std::set<std::string> of_other_files{"brume.yaml", "brume.safetensors", "brume.job", "brume.arguments"};
  const std::regex literal("\"(brume\\.[a-z_0-9]+)\"");
  size_t keys = 0;
  for (const Source& s : sources()) {
    if (s.name.starts_with("tests/")) continue;
    for (std::sregex_iterator i(s.text.begin(), s.text.end(), literal), end; i != end; ++i) {
      const bool key = of_other_files.count((*i)[1]) == 0;
      keys += key;
      EXPECT_TRUE(!key || s.name.ends_with("weights/model_metadata.h")) << s.name << ": " << (*i)[0];
    }
  }
  EXPECT_GT(keys, 5u);
}

TEST(Sources, FunctionsAreSeen) {
  const auto found = functions_of(
      "namespace a {\n"
      "const int table[] = {1, 2};\n"
      "/// {\n"
      "int f(char c) {\n"
      "  if (c == '{') return 1'000;\n"
      "  return g(\"}\", R\"x({)x\");\n"
      "}\n"
      "class B {\n"
      " public:\n"
      "  int h() const { return 1; }\n"
      "};\n"
      "}\n");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].first, 4);
  EXPECT_EQ(found[0].lines, 4);
  EXPECT_EQ(found[1].lines, 1);
}

}  // namespace
