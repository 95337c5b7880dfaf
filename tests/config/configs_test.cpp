// What the project ships: every configuration reads, the schema for editors fits them, and the generated files are up to date.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/describe.h"
#include "brume/train/options.h"
#include "brume/train/source.h"
#include "json_schema.h"
#include "support/process.h"
#include "support/registry.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;
const fs::path source = BRUME_SOURCE_DIR;

std::vector<std::string> files_under(const fs::path& folder) {
  std::vector<std::string> files;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (entry.path().extension() == ".yaml") files.push_back(fs::relative(entry.path(), source / "configs").string());
  std::sort(files.begin(), files.end());
  return files;
}

std::string schema() {
  return json_schema(builtins(), [](Fields& f) {
    Config config;
    config.declare(f);
  });
}

std::string name_of(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

/// A configuration, or a part of one.
class Shipped : public testing::TestWithParam<std::string> {
 protected:
  fs::path file() const { return source / "configs" / GetParam(); }
  bool part() const { return GetParam().starts_with("parts/"); }
  /// The file with all its sections, but what differs from run to run of a sweep; what starts from another model takes those of a
  /// configuration of such a model.
  Value configuration() const {
    Value root = load_yaml(file());
    root.erase("sweep");
    if (!nearest(root, "train.from").is_scalar()) return root;
    const bool classes = GetParam().ends_with("_classes.yaml") || GetParam().ends_with("_few_steps.yaml"),
               decoder = GetParam().ends_with("_decoder.yaml");
    const bool control = GetParam().ends_with("control_shapes.yaml");
    const char* of = classes   ? "fashion_mnist.yaml"
                     : control ? "shapes_pixels.yaml"
                     : decoder ? "shapes_autoencoder.yaml"
                               : "shapes_text_latent.yaml";
    complete_model(root, load_yaml(source / "configs/experiments" / of));
    return root;
  }
};

TEST_P(Shipped, BeginsWithItsSchema) {
  const std::string text = read_text(file()), mark = "# yaml-language-server: $schema=";
  ASSERT_TRUE(text.starts_with(mark)) << "the first line must be: " << mark << "../schema.json";
  const fs::path named = file().parent_path() / text.substr(mark.size(), text.find('\n') - mark.size());
  EXPECT_TRUE(fs::is_regular_file(named)) << named << " does not exist";
}

TEST_P(Shipped, Reads) {
  if (part()) return static_cast<void>(load_yaml(file()));  // read by the files that include it
  const Value root = configuration();
  Registry registry = builtins();
  Value resolved;
  read_configuration(registry, root, &resolved);
  Value again;
  read_configuration(registry, parse_yaml(dump_yaml(resolved), "resolved"), &again);
  EXPECT_EQ(dump_yaml(again), dump_yaml(resolved));
}

TEST_P(Shipped, FitsTheSchema) {
  const JsonSchema checker(Json::parse(schema()));
  if (part()) return;  // a part is a section, of which the schema does not say which
  const Json as_written = to_json(parse_yaml(read_text(file()), file().string()));
  EXPECT_EQ(fmt::format("{}", fmt::join(checker.check(as_written), "\n")), "");
  const Json complete = to_json(load_yaml(file()));
  EXPECT_EQ(fmt::format("{}", fmt::join(checker.check(complete), "\n")), "");
}

TEST_P(Shipped, ResolvedFitsTheSchema) {
  if (part()) return;
  Registry registry = builtins();
  Value resolved;
  read_configuration(registry, configuration(), &resolved);
  EXPECT_EQ(fmt::format("{}", fmt::join(JsonSchema(Json::parse(schema())).check(to_json(resolved)), "\n")), "");
}

INSTANTIATE_TEST_SUITE_P(Configs, Shipped, testing::ValuesIn(files_under(source / "configs")), name_of);

class SchemaCheck : public testing::Test {
 protected:
  std::string wrong(const std::string& yaml) const {
    return fmt::format("{}", fmt::join(checker_.check(to_json(parse_yaml(yaml, "x"))), "\n"));
  }
  JsonSchema checker_{Json::parse(schema())};
};

TEST_F(SchemaCheck, RightConfigurations) {
  EXPECT_EQ(wrong("model: {network: unet}\nsample: {steps: 20, sampler: {type: ddim, eta: 1}, guidance: [{type: cfg, scale: 2}, clip]}"),
            "");
  EXPECT_EQ(wrong("sample: {guidance: cfg, spacing: {type: karras, sigma_min: null, rho: 5.5}}"), "");
  EXPECT_EQ(wrong("include: base.yaml\nsample: {sampler: {include: ddim.yaml}}"), "");
  EXPECT_EQ(wrong("train: {objective: {type: simple, weighting: {type: min_snr, gamma: 5}}}"), "");
}

TEST_F(SchemaCheck, MisspeltKeysAndPlugins) {
  EXPECT_EQ(wrong("modle: {}"), ": unknown key modle");
  EXPECT_EQ(wrong("sample: {stpes: 20}"), ".sample: unknown key stpes");
  EXPECT_EQ(wrong("sample: {sampler: ddmi}"), ".sample.sampler: \"ddmi\" fits nothing allowed here");
  EXPECT_EQ(wrong("sample: {sampler: {type: ddim, etaa: 1}}"), ".sample.sampler: {\"etaa\":1,\"type\":\"ddim\"} fits nothing allowed here");
  EXPECT_EQ(wrong("sample: {sampler: {eta: 1}}"), ".sample.sampler: {\"eta\":1} fits nothing allowed here");
}

TEST_F(SchemaCheck, WrongTypesAndRanges) {
  EXPECT_EQ(wrong("sample: {steps: many}"), ".sample.steps: is no \"integer\"");
  EXPECT_EQ(wrong("sample: {steps: '20'}"), ".sample.steps: is no \"integer\"");
  EXPECT_EQ(wrong("sample: {steps: 0}"), ".sample.steps: 0 breaks minimum 1.0");
  EXPECT_EQ(wrong("sample: {noise_order: both}"),
            ".sample.noise_order: \"both\" is none of [\"per_image\",\"batch\",\"brownian\",\"per_seed\"]");
  EXPECT_NE(wrong("sample: {sampler: {type: ddim, eta: 1.5}}"), "");
  EXPECT_NE(wrong("sample: {spacing: {type: karras, sigma_min: 0}}"), "");
  EXPECT_EQ(wrong("train: {ema: {power: 0}}"), ".train.ema.power: 0 breaks exclusiveMinimum 0.0");
}

/// Where two long texts part.
std::string difference(const std::string& a, const std::string& b) {
  if (a == b) return "";
  const size_t at = size_t(std::mismatch(a.begin(), a.begin() + std::ptrdiff_t(std::min(a.size(), b.size())), b.begin()).first - a.begin());
  const long line = 1 + std::count(a.begin(), a.begin() + std::ptrdiff_t(at), '\n');
  const size_t from = at > 60 ? at - 60 : 0;
  return fmt::format("line {}: '{}' instead of '{}'", line, a.substr(from, 120), b.substr(from, 120));
}

TEST(Generated, SchemaIsUpToDate) {
  EXPECT_EQ(difference(read_text(source / "configs/schema.json"), schema()), "") << "regenerate: build/brume schema > configs/schema.json";
}

TEST(Generated, ReferenceIsUpToDate) {
  const Entry::Declare root = [](Fields& f) {
    Config config;
    config.declare(f);
  };
  const std::string text = reference_markdown(builtins(), root, "Generated by `brume describe --markdown`.");
  EXPECT_EQ(difference(read_text(source / "docs/reference.md"), text), "")
      << "regenerate: build/brume describe --markdown > docs/reference.md";
}

// A rule that names a value of the configuration would name one that the reference does not have.
TEST(Generated, RulesAreWholeSentences) {
  const std::string text = read_text(source / "docs/reference.md");
  size_t rules = 0;
  for (size_t at = text.find("\nRule: "); at != std::string::npos; at = text.find("\nRule: ", at + 1), ++rules) {
    const std::string rule = text.substr(at + 1, text.find('\n', at + 1) - at - 1);
    EXPECT_FALSE(rule.ends_with(' ') || rule.find("  ") != std::string::npos || rule.find("''") != std::string::npos) << rule;
  }
  EXPECT_GT(rules, 200u);
}

}  // namespace
}  // namespace brume::test
