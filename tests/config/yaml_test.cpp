// YAML in and out.
#include <fmt/format.h>

#include <cmath>

#include "support/tempdir.h"
#include "toys.h"

namespace brume::test {
namespace {

std::string parse_error(const std::string& yaml) {
  return error_of([&] { parse_yaml(yaml, "x.yaml"); });
}

TEST(Yaml, SyntaxErrors) {
  EXPECT_EQ(parse_error("a: [1, 2"), "x.yaml:1:4: not YAML: the '[' here is not closed, or a comma is missing after it");
  EXPECT_EQ(parse_error("a: {b: 1\nc: 2\n"), "x.yaml:1:4: not YAML: the '{' here is not closed, or a comma is missing after it");
  EXPECT_EQ(parse_error("a: \"text"), "x.yaml:1:9: not YAML: illegal EOF in scalar");
  EXPECT_EQ(parse_error("a: 1\n b: 2"), "x.yaml:2:3: not YAML: illegal map value");
  // yaml-cpp 0.8 adds the name of the anchor.
  EXPECT_TRUE(parse_error("a: *nowhere").starts_with("x.yaml:1:4: not YAML: the referenced anchor is not defined"));
  EXPECT_EQ(parse_error("[1, 2"), "x.yaml:1:1: not YAML: the '[' here is not closed, or a comma is missing after it");
  EXPECT_EQ(parse_error("[a, b]: 1"), "x.yaml:1:1: a key must be a plain word");
  EXPECT_EQ(parse_error("x: 1\n? {a: b}\n: 1"), "x.yaml:2:3: a key must be a plain word");
}

TEST(Yaml, Tabs) {
  EXPECT_EQ(parse_error("a:\n\tb: 1"), "x.yaml:2:1: a tab in the indentation; YAML is indented with spaces");
  EXPECT_EQ(parse_error("a:\n  \tb: 1"), "x.yaml:2:3: a tab in the indentation; YAML is indented with spaces");
  EXPECT_EQ(parse_yaml("a: 1\t# a tab after a value\n\t\n\t# and in a comment\n", "x").find("a")->scalar, "1");
}

TEST(Yaml, OtherEncodings) { EXPECT_EQ(parse_error("a: 1\nb: \xff"), "x.yaml:2:4: is not UTF-8"); }

TEST(Yaml, ControlCharactersAreReadAsTheyWereWritten) {
  for (const std::string& text : {std::string("\r\r "), std::string("\0 0", 3), std::string("\x7f")}) {
    Value root = Value::map();
    root.set("a", Value::text(text));
    EXPECT_EQ(parse_yaml(dump_yaml(root), "x.yaml").find("a")->scalar, text);
  }
}

TEST(Yaml, Documents) {
  EXPECT_EQ(parse_error("a: 1\n---\nb: 2"), "x.yaml:3:1: a second YAML document; one file is one configuration");
  EXPECT_EQ(parse_yaml("---\na: 1\n...\n", "x").find("a")->scalar, "1");
  for (const char* nothing : {"", "\n\n", "# only a comment\n", "---\n", "~", "null"}) {
    const Value v = parse_yaml(nothing, "x.yaml");
    EXPECT_TRUE(v.is_null() || (v.is_map() && v.entries.empty())) << nothing;
    const std::string said = error_of([&] { read(v); }), place = nothing == std::string("---\n") ? "x.yaml:2:1" : "x.yaml:1:1";
    EXPECT_EQ(said, place + ": motor: missing 'gear' (a gear: chain, cog, plain)") << nothing;
  }
}

TEST(Yaml, Files) {
  const TempFolder folder;
  const auto load_error = [&](const std::string& name) { return without(error_of([&] { load_yaml(folder.file(name)); }), folder); };
  const std::string here = " (in " + std::filesystem::current_path().string() + ")";
  EXPECT_EQ(load_error("nowhere.yaml"), "nowhere.yaml: cannot be read" + here);
  std::filesystem::create_directory(folder.path() / "folder.yaml");
  EXPECT_EQ(load_error("folder.yaml"), "folder.yaml: cannot be read" + here);
  EXPECT_EQ(load_error("foldre.yaml"), "foldre.yaml: cannot be read" + here + "; did you mean 'folder.yaml'?");
  folder.file("empty.yaml", "");
  EXPECT_TRUE(load_yaml(folder.file("empty.yaml")).entries.empty());
  folder.file("bad.yaml", "a: 1\na: 2\n");
  EXPECT_EQ(load_error("bad.yaml"), "bad.yaml:2:1: key 'a' is given twice; the first is at line 1");
}

TEST(Yaml, WindowsLinesAndByteOrderMark) {
  const Value v = parse_yaml("\xEF\xBB\xBFsteps: 3\r\nlabel: two words\r\n", "x");
  ASSERT_TRUE(v.find("steps"));
  EXPECT_EQ(v.find("steps")->scalar, "3");
  EXPECT_EQ(v.find("label")->scalar, "two words");
}

TEST(Yaml, Unicode) {
  EXPECT_EQ(read("label: Béres 雲 🌫\nmotor: {gear: plain}").machine.label, "Béres 雲 🌫");
  EXPECT_EQ(read("label: \"\\u00e9\\x41\"\nmotor: {gear: plain}").machine.label, "éA");
  EXPECT_EQ(mistakes("motor: {gear: plain}\nétapes: 3"), "x.yaml:2:1: unknown key 'étapes'; known: motor, cooler, steps, label, gears");
}

TEST(Yaml, AnchorsAndAliases) {
  const Read r = read("motor: {gear: &g {type: cog, teeth: 33}}\ngears: [*g, *g]");
  EXPECT_EQ(cog(r.machine.gears.at(1)).o.teeth, 33);
}

// Nine lines of ten aliases each stand for a billion values.
TEST(Yaml, AliasesOfAliasesHaveAnEnd) {
  std::string text = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n";
  for (int i = 1; i < 9; ++i) {
    text += fmt::format("a{0}: &a{0} [", i);
    for (int k = 0; k < 10; ++k) text += fmt::format("{}*a{}", k ? ", " : "", i - 1);
    text += "]\n";
  }
  EXPECT_EQ(error_of([&] { parse_yaml(text, "many.yaml"); }), "many.yaml:6:45: this alias makes more than 1000000 values of the file");
}

TEST(Yaml, PlacesCountFromOne) {
  const Value v = parse_yaml("# comment\na:\n  - b: 5\n", "x.yaml");
  const Value& five = *v.find("a")->items.at(0).find("b");
  EXPECT_EQ(five.place.text(), "x.yaml:3:8");
  EXPECT_EQ(v.entries[0].place.text(), "x.yaml:2:1");
}

void expect_same(const Value& a, const Value& b) {
  ASSERT_EQ(a.type, b.type) << a.scalar << " / " << b.scalar;
  EXPECT_EQ(a.scalar, b.scalar);
  ASSERT_EQ(a.items.size(), b.items.size());
  for (size_t i = 0; i < a.items.size(); ++i) expect_same(a.items[i], b.items[i]);
  ASSERT_EQ(a.entries.size(), b.entries.size());
  for (size_t i = 0; i < a.entries.size(); ++i) {
    EXPECT_EQ(a.entries[i].key, b.entries[i].key);
    expect_same(a.entries[i].value, b.entries[i].value);
  }
}

TEST(Yaml, DumpParsesBackToTheSameTree) {
  for (const char* text : {"a: 1\nb: {c: [1, 2.5, x], d: {}}\ne: []\n", "list:\n  - {type: cog, teeth: 3}\n  - plain\n  - {}\n  - ~\n",
                           "deep: [[1, 2], [[3]], [{a: [x, 'y']}, []]]\n", "a: {b: {c: {d: [{e: {f: 1}}]}}}\n", "n: ~\nm: ''\n"}) {
    const Value once = parse_yaml(text, "once");
    const std::string dumped = dump_yaml(once);
    SCOPED_TRACE(dumped);
    expect_same(once, parse_yaml(dumped, "twice"));
    EXPECT_EQ(dump_yaml(parse_yaml(dumped, "twice")), dumped);
  }
}

TEST(Yaml, DumpKeepsEveryString) {
  for (const std::string text :
       {"",        " ",           "plain",     "two words",   " leading", "trailing ", "a: b",        "a:b",      "#",
        "a #b",    "- a",         "-",         "?",           "? a",      "...",       "---",         "<<",       "=",
        "&a",      "*a",          "!t",        "|",           ">",        "%",         "@",           "`",        "'",
        "\"",      "it's",        "say \"x\"", "[1]",         "{a}",      "a, b",      "true",        "false",    "null",
        "~",       "Null",        "yes",       "1",           "1.0",      "-1",        "1e5",         "0x1F",     ".inf",
        "nan",     "line\nbreak", "tab\there", "back\\slash", "\x01\x1b", "\x7f",      "é 雲 🌫", "\xc2\x85", "\xe2\x80\xa8",
        "C:\\dir", "a\r\nb"}) {
    Value root = Value::map();
    root.set("key", Value::text(text, true));
    root.set(text, Value::text("as a key"));
    root.set("list", Value::list({Value::text(text, true), Value::text("x")}));
    const std::string dumped = dump_yaml(root);
    SCOPED_TRACE(dumped);
    const Value back = parse_yaml(dumped, "back");
    ASSERT_TRUE(back.find("key") && back.find("key")->is_scalar());
    EXPECT_EQ(back.find("key")->scalar, text);
    ASSERT_TRUE(back.find(text));
    EXPECT_EQ(back.find("list")->items.at(0).scalar, text);
    EXPECT_TRUE(back.find("list")->items.at(0).is_scalar());
  }
}

TEST(Yaml, ResolvedDumpIsAFixpoint) {
  const Read once = read(
      "motor:\n  gear: {type: chain, first: cog, rest: [plain, {type: cog, seed: 3, bias: ~, rho: .inf, eta: 1e-17, name: '1.5', words: "
      "[a, 'true', '']}]}\n"
      "cooler: {speed: 0.1}\nlabel: \"a: b # c\"\ngears: plain\n");
  const std::string dumped = dump_yaml(once.resolved);
  const Read twice = read(dumped);
  EXPECT_EQ(dump_yaml(twice.resolved), dumped);
  const Cog& c = cog(dynamic_cast<const Chain&>(*twice.machine.motor.gear).o.rest.at(1));
  EXPECT_EQ(c.o.eta, 1e-17);
  EXPECT_EQ(c.o.seed, 3);
  EXPECT_FALSE(c.o.bias);
  EXPECT_TRUE(std::isinf(c.o.rho));
  EXPECT_EQ(c.o.name, "1.5");
  EXPECT_EQ(c.o.words, (std::vector<std::string>{"a", "true", ""}));
}

}  // namespace
}  // namespace brume::test
