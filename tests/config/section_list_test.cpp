// Lists of groups of fields, and maps whose keys the user chooses: reading, defaults, mistakes, description and schema.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "brume/config/describe.h"
#include "brume/config/registry.h"
#include "brume/config/yaml.h"

namespace brume {
namespace {

struct Group {
  std::string match;
  double lr = 1;
  void declare(Fields& f) {
    f.field("match", match, "names");
    f.field("lr", lr, "learning rate", at_least(0));
  }
};

struct Settings {
  std::vector<Group> groups;
  std::map<std::string, std::string> classes{{"0", "none"}};
  void declare(Fields& f) {
    f.sections("groups", groups, "weights of their own");
    f.field("classes", classes, "what becomes what");
  }
};

struct Read {
  Settings settings;
  std::string resolved, error;
  explicit Read(const std::string& yaml) {
    const Registry registry;
    try {
      resolved = dump_yaml(read_config(registry, parse_yaml(yaml, "x.yaml"), settings));
    } catch (const ConfigError& e) {
      error = e.what();
    }
  }
};

TEST(SectionList, EachGroupIsRead) {
  const Read read("groups:\n  - {match: a}\n  - {match: b, lr: 0.5}\n");
  ASSERT_EQ(read.settings.groups.size(), 2u) << read.error;
  EXPECT_EQ(read.settings.groups[0].match, "a");
  EXPECT_EQ(read.settings.groups[0].lr, 1);
  EXPECT_EQ(read.settings.groups[1].lr, 0.5);
  EXPECT_EQ(Read(read.resolved).resolved, read.resolved) << "a resolved configuration says the same";
  EXPECT_EQ(Read("groups: {match: a}").settings.groups.size(), 1u) << "one stands for a list of one";
  EXPECT_TRUE(Read("classes: {}").settings.groups.empty());
}

TEST(SectionList, MistakesHaveTheirPlace) {
  EXPECT_EQ(Read("groups:\n  - {match: a}\n  - {mtach: b, lr: -1}\n").error,
            "x.yaml:3:6: groups.1: unknown key 'mtach'; did you mean 'match'?\nx.yaml:3:20: groups.1: lr = -1 is outside [0, inf]");
  EXPECT_EQ(Read("groups: [a]").error, "x.yaml:1:10: groups.0: expected a map of settings, got 'a'");
}

TEST(WordMap, KeysAreTheUsers) {
  EXPECT_EQ(Read("classes: {3: cat, dog: 7}").settings.classes, (std::map<std::string, std::string>{{"3", "cat"}, {"dog", "7"}}));
  EXPECT_EQ(Read("groups: []").settings.classes.at("0"), "none") << "the default";
  EXPECT_EQ(Read("classes: [cat]").error, "x.yaml:1:10: classes: expected a map of strings, got a list");
  EXPECT_EQ(Read("classes: {a: [1]}").error, "x.yaml:1:14: classes.a: expected a string, got a list");
}

TEST(SectionList, IsDescribed) {
  const Entry::Declare declare = [](Fields& f) {
    Settings settings;
    settings.declare(f);
  };
  const Registry registry;
  const nlohmann::json schema = nlohmann::json::parse(json_schema(registry, declare));
  const nlohmann::json& groups = schema["properties"]["groups"];
  EXPECT_EQ(groups["type"], "array");
  EXPECT_EQ(groups["items"]["properties"]["lr"]["minimum"], 0);
  EXPECT_EQ(schema["properties"]["classes"]["type"], "object");
  EXPECT_NE(reference_markdown(
                registry,
                [&](Fields& f) {
                  struct Root {
                    Settings settings;
                    void declare(Fields& fields) { fields.section("train", settings, "all of it"); }
                  } root;
                  root.declare(f);
                },
                "")
                .find("| `groups[].lr` | float | `1` | >= 0 | learning rate |"),
            std::string::npos);
}

}  // namespace
}  // namespace brume
