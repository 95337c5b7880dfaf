// docs/add-a-plugin.md shows the code of docs/examples/out_of_tree_plugin, which is built and run here.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <cmath>

#include "brume/config/plugin_loader.h"
#include "brume/core/sampler.h"
#include "cli/new_projects.h"
#include "support/gaussian.h"

namespace brume::test {
namespace {

std::string page() { return read_text(fs::path(BRUME_SOURCE_DIR) / "docs/add-a-plugin.md"); }
std::string example(const std::string& file) { return read_text(fs::path(BRUME_SOURCE_DIR) / "docs/examples/out_of_tree_plugin" / file); }

/// The code blocks of a language in a page.
std::vector<std::string> blocks(const std::string& text, const std::string& language) {
  std::vector<std::string> all;
  const std::string open = "```" + language + "\n";
  for (size_t at = 0; (at = text.find(open, at)) != std::string::npos;) {
    const size_t begin = at + open.size(), end = text.find("```\n", begin);
    all.push_back(text.substr(begin, end - begin));
    at = end;
  }
  return all;
}

void expect_block(const std::string& file, const std::string& language) {
  const std::vector<std::string> all = blocks(page(), language);
  EXPECT_TRUE(std::find(all.begin(), all.end(), example(file)) != all.end()) << "no block of docs/add-a-plugin.md is " << file;
}

TEST(AddAPlugin, ThePageShowsTheExample) {
  expect_block("ralston.cpp", "cpp");
  expect_block("CMakeLists.txt", "cmake");
}

TEST(AddAPlugin, ThePageCountsItsLines) {
  size_t lines = 0, code = 0, method = 0;
  bool inside = false;
  for (const std::string& line : lines_of(example("ralston.cpp"))) {
    const size_t first = line.find_first_not_of(' ');
    const bool counts = first != std::string::npos && line.compare(first, 2, "//") != 0;
    ++lines;
    code += counts;
    inside = inside || line.find("Tensor sample(") != std::string::npos;
    method += inside && counts;
    if (line == "  }") inside = false;
  }
  const std::string said = "**" + std::to_string(lines) + " lines** in one file: " + std::to_string(code) + " of code, " +
                           std::to_string(method) + " of them the method itself";
  EXPECT_NE(page().find(said), std::string::npos) << "the page should say: " << said;
}

TEST(AddAPlugin, TheExampleRuns) {
  const Projects& projects = Projects::get();
  const TempFolder folder;
  const std::string config = (projects.example() / "test.yaml").string(), library = projects.example_library().string();
  const Finished train =
      projects.run_installed({"train", config, "--plugin", library, "--set", "train.steps=2", "--out", folder.file("run")});
  EXPECT_EQ(train.code, 0) << train.err;
  EXPECT_TRUE(fs::exists(folder.file("run/samples/step_000002.png")));
}

TEST(AddAPlugin, ThePageQuotesTheErrorOfAMisspeltKey) {
  const Projects& projects = Projects::get();
  const Finished done = run_brume({"check", (projects.example() / "test.yaml").string(), "--plugin", projects.example_library().string(),
                                   "--set", "sample.sampler.alhpa=0.5"});
  EXPECT_EQ(done.err, "error: --set sample.sampler.alhpa=0.5: sample.sampler: unknown key 'alhpa'; did you mean 'alpha'?\n");
  EXPECT_NE(page().find(done.err), std::string::npos);
}

/// The error of a sampler on the exact denoiser of a Gaussian.
double error(const Sampler& sampler, int64_t steps) {
  const GaussianDenoiser denoiser(0.6);
  const Condition none;
  const auto noise = per_image_noise(1, 0);
  Run run{none, *noise, {}};
  const Tensor x = sampler.sample(denoiser, at::full({1, 1}, 10.0, at::kDouble), curved(10, 0.05, steps), run);
  return std::abs(x.item<double>() / (10 * denoiser.flow(10, 0.05)) - 1);
}

// Code that was compiled elsewhere runs here: across the library's border, Heun and Ralston are of second order.
TEST(AddAPlugin, SamplersOfLibrariesAreOfSecondOrder) {
  Registry registry = builtins();
  load_plugin(registry, Projects::get().example_library());
  load_plugin(registry, Projects::get().library("sampler"));
  for (const char* yaml : {"ralston", "{type: ralston, alpha: 0.5}", "my_sampler"}) {
    const auto sampler = create<Sampler>(registry, parse_yaml(yaml, "x.yaml"));
    EXPECT_GT(std::log2(error(*sampler, 64) / error(*sampler, 128)), 1.8) << yaml;
  }
  EXPECT_EQ(error_of([&] { create<Sampler>(registry, parse_yaml("{type: ralston, alhpa: 0.5}", "x.yaml")); }),
            "x.yaml:1:17: sampler: unknown key 'alhpa'; did you mean 'alpha'?");
}

}  // namespace
}  // namespace brume::test
