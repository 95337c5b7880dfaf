// Several sets as one: how often each is read, and their classes.
#include <map>

#include "brume/core/warnings.h"
#include "brume/image/image.h"
#include "support.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
constexpr ImageShape shape{1, 4, 4};

class MixedSets : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& [name, level] :
         {std::pair("one/cat/a.png", 10), {"one/dog/b.png", 20}, {"two/bird/c.png", 30}, {"two/cat/d.png", 40}}) {
      fs::create_directories((dir.path / name).parent_path());
      write_png(dir / name, Image(4, 4, 1, uint8_t(level)));
    }
  }
  std::string mix(const std::string& first, const std::string& second) const {
    const auto set = [&](const std::string& folder, const std::string& weight) {
      return "{data: {type: image_folder, path: " + (dir / folder) + "}, weight: " + weight + "}";
    };
    return "{type: mix, sets: [" + set("one", first) + ", " + set("two", second) + "]}";
  }
  TempDir dir;
};

TEST_F(MixedSets, EachImageIsReadAsOftenAsItsSetWeighs) {
  const Opened set(mix("1", "3"), shape);
  ASSERT_EQ(set.data->size(), 2 + 6);
  std::map<long, int> seen;
  for (int64_t i = 0; i < set.data->size(); ++i) ++seen[set.read(i).value(shape, 0, 0, 0)];
  EXPECT_EQ(seen, (std::map<long, int>{{10, 1}, {20, 1}, {30, 3}, {40, 3}}));
  EXPECT_THROW(set.read(8), std::out_of_range);
}

TEST_F(MixedSets, TheRestOfAWeightIsDrawn) {
  const Opened set(mix("1", "0.5"), shape);
  ASSERT_EQ(set.data->size(), 2 + 1);
  std::map<long, int> seen;
  for (uint64_t draw = 0; draw < 300; ++draw) ++seen[set.read(2, draw).value(shape, 0, 0, 0)];
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_NEAR(seen[30], 150, 43);
}

TEST_F(MixedSets, ClassesOfOneNameAreOne) {
  const Opened set(mix("1", "1"), shape);
  EXPECT_EQ(set.data->classes(), (std::vector<std::string>{"cat", "dog", "bird"}));
  for (int64_t i = 0; i < 4; ++i) {
    const Picture p = set.read(i);
    EXPECT_EQ(p.label, (std::map<long, int64_t>{{10, 0}, {20, 1}, {30, 2}, {40, 0}}.at(p.value(shape, 0, 0, 0))));
  }
}

TEST_F(MixedSets, BucketsHaveNoEffectThere) {
  std::vector<std::string> said;
  const WarningScope warnings([&](const std::string& text) { said.push_back(text); });
  const auto mixed = [&](const std::string& more) {
    said.clear();
    Opened("{type: mix, sets: [{data: {type: captioned_folder, path: " + (dir / "one") + ", prompt: a cat" + more + "}}]}", {1, 16, 16});
  };
  mixed("");
  EXPECT_TRUE(said.empty());
  mixed(", buckets: {step: 8}");
  ASSERT_EQ(said.size(), 1U);
  EXPECT_NE(said.front().find("its buckets have no effect in a mix"), std::string::npos) << said.front();
}

TEST_F(MixedSets, WhatCannotBeMixed) {
  EXPECT_NE(open_error("{type: mix}", shape).find("missing 'sets'"), std::string::npos);
  EXPECT_NE(open_error("{type: mix, sets: [{data: shapes}]}", {3, 32, 32}).find("is endless"), std::string::npos);
  EXPECT_NE(open_error("{type: mix, sets: [{data: shapes, wieght: 2}]}", {3, 32, 32}).find("did you mean 'weight'"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
