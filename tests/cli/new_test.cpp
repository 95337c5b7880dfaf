// `brume new`: for every kind of plugin, a project that builds against an installed brume and runs as it is.
#include <algorithm>

#include "brume/config/plugin_loader.h"
#include "cli/new_projects.h"

namespace brume::test {
namespace {

class NewPlugin : public testing::TestWithParam<std::string> {
 protected:
  const Projects& projects_ = Projects::get();
  const std::string kind_ = GetParam(), name_ = "my_" + kind_, library_ = projects_.library(kind_).string();
};

TEST_P(NewPlugin, ChecksTrainsAndSamples) {
  const TempFolder runs;
  const std::string config = (projects_.folder(kind_) / "test.yaml").string(), model = runs.file("run/model.safetensors");
  const Finished check = projects_.run_installed({"check", config, "--plugin", library_});
  EXPECT_EQ(check.out, config + ": no mistakes\n");
  EXPECT_EQ(check.err, "");
  std::vector<std::string> words{"train", config, "--plugin", library_, "--set", "train.steps=2", "--out", runs.file("run")};
  if (kind_ != "classifier") words.insert(words.end(), {"--set", "train.preview.count=1"});
  const Finished train = run_brume(words);
  ASSERT_EQ(train.code, 0) << train.err;
  EXPECT_TRUE(fs::exists(model));
  if (kind_ == "classifier") return;  // it makes no images
  EXPECT_TRUE(fs::exists(runs.file("run/samples/step_000002.png")));
  if (kind_ == "perceptual_loss") return;  // of an autoencoder, from which nothing is sampled
  const Finished sample = projects_.run_installed({"sample", model, "--plugin", library_, "-n", "2", "-o", runs.file("two.png")});
  EXPECT_EQ(sample.code, 0) << sample.err;
  EXPECT_TRUE(fs::exists(runs.file("two.png")));
}

TEST_P(NewPlugin, IsUsedByItsConfiguration) {
  if (kind_ == "metric" || kind_ == "set_metric" || kind_ == "features")
    GTEST_SKIP() << "measures what a configuration makes, and stands in none";
  const Finished without = run_brume({"check", (projects_.folder(kind_) / "test.yaml").string()});
  EXPECT_EQ(without.code, 2);
  EXPECT_NE(without.err.find("unknown " + kind_ + " '" + name_ + "'"), std::string::npos) << without.err;
}

TEST_P(NewPlugin, IsDescribed) {
  Registry registry = builtins();
  load_plugin(registry, library_);
  const std::string text = describe(registry, kind_, name_), title = kind_ + " " + name_ + " (" + fs::canonical(library_).string() + ")\n";
  EXPECT_EQ(text.substr(0, title.size()), title);
}

INSTANTIATE_TEST_SUITE_P(Registry, NewPlugin, testing::ValuesIn(Projects::kinds()), [](const auto& info) { return info.param; });

// The contract suites run over the registry, so they hold a library to them like everything built in.
TEST(NewPlugins, KeepTheContractsOfTheirKinds) {
  const fs::path contracts = fs::path(BRUME_BINARY_DIR) / "tests/test_contracts";
  if (!fs::exists(contracts)) GTEST_SKIP() << contracts << " is not built";
  const TempFolder folder;
  for (const std::string& kind : Projects::get().kinds())
    fs::copy(Projects::get().library(kind), folder.path() / Projects::get().library(kind).filename());
  fs::copy(Projects::get().example_library(), folder.path() / "libralston.so");
  const Finished done = run({contracts.string(), "--gtest_brief=1", "--gtest_filter=*my_*:*ralston*"},
                            {.folder = {}, .variables = {{"BRUME_PLUGIN_PATH", folder.path().string()}}});
  EXPECT_EQ(done.code, 0) << done.out << done.err;
  EXPECT_EQ(done.out.find(" 0 tests"), std::string::npos) << done.out;
}

TEST(New, WritesAProject) {
  const TempFolder folder;
  const Finished made = run_brume({"new", "sampler", "sky"}, {.folder = folder.path()});
  EXPECT_EQ(made.code, 0);
  EXPECT_EQ(made.err, "");
  EXPECT_EQ(made.out,
            "sky: sky.cpp, CMakeLists.txt, test.yaml, README.md\n\n"
            "  cmake -G Ninja -S sky -B sky/build -DCMAKE_PREFIX_PATH=/prefix/of/brume && cmake --build sky/build\n"
            "  brume train sky/test.yaml --plugin sky/build/libsky.so --out sky/run\n");
  for (const char* file : {"sky.cpp", "CMakeLists.txt", "test.yaml", "README.md"}) {
    const std::string text = read_text(folder.path() / "sky" / file);
    EXPECT_NE(text.find("sky"), std::string::npos) << file;
    for (const char* left : {"@name@", "@Class@", "@kind@", "@prefix@"})
      EXPECT_EQ(text.find(left), std::string::npos) << file << " " << left;
  }
  EXPECT_NE(read_text(folder.path() / "sky/sky.cpp").find("class Sky final : public Sampler"), std::string::npos);
}

TEST(New, TheInstalledProgramKnowsItsPrefix) {
  const TempFolder folder;
  const Projects& projects = Projects::get();
  const Finished made = projects.run_installed({"new", "spacing", "wide", "-o", "a/b/wide/"}, {.folder = folder.path()});
  EXPECT_EQ(made.code, 0) << made.err;
  EXPECT_NE(
      made.out.find("cmake -G Ninja -S a/b/wide -B a/b/wide/build -DCMAKE_PREFIX_PATH=" + fs::canonical(projects.prefix()).string() + " "),
      std::string::npos)
      << made.out;
  EXPECT_TRUE(fs::exists(folder.path() / "a/b/wide/wide.cpp"));
}

// What the source already means by a word is not taken for the class.
TEST(New, ClassNamesDoNotClash) {
  const TempFolder folder;
  EXPECT_EQ(run_brume({"new", "sampler", "tensor"}, {.folder = folder.path()}).code, 0);
  EXPECT_NE(read_text(folder.path() / "tensor/tensor.cpp").find("class TensorPlugin final : public Sampler"), std::string::npos);
}

TEST(New, Refusals) {
  const TempFolder folder;
  folder.file("full/a.txt", "mine");
  folder.file("file", "mine");
  const auto error = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "new");
    const Finished done = run_brume(words, {.folder = folder.path()});
    EXPECT_EQ(done.code, 2);
    EXPECT_EQ(done.out, "");
    return done.err;
  };
  const std::string rule = "cannot be the name of a plugin: lower-case letters, digits and '_', beginning with a letter";
  EXPECT_EQ(error({"smapler", "mine"}), "error: unknown kind 'smapler'; did you mean 'sampler'?\n");
  EXPECT_EQ(error({"denoiser", "mine"}),
            "error: unknown kind 'denoiser'; known: autoencoder, classifier, conditioner, dataset, features, guidance, lr_schedule, "
            "metric, network, "
            "noise_embedding, "
            "noise_schedule, "
            "objective, optimizer, parameterization, perceptual_loss, sampler, set_metric, spacing, time_sampler, weighting\n");
  EXPECT_EQ(error({"sampler", "2nd"}), "error: '2nd' " + rule + "\n");
  EXPECT_EQ(error({"sampler", "My-Sampler"}), "error: 'My-Sampler' " + rule + "; did you mean 'my_sampler'?\n");
  EXPECT_EQ(error({"sampler", "../sky"}), "error: '../sky' " + rule + "\n");
  EXPECT_EQ(error({"sampler", "ddim"}), "error: there is a sampler 'ddim' already (built-in); choose another name\n");
  EXPECT_EQ(error({"sampler", "test"}), "error: 'test' cannot be the name of a plugin: it means something to CMake; choose another name\n");
  EXPECT_EQ(error({"sampler", "full"}), "error: full: is not empty; name another folder with -o\n");
  EXPECT_EQ(error({"sampler", "sky", "-o", "full"}), "error: full: is not empty; name another folder with -o\n");
  EXPECT_EQ(error({"sampler", "file"}), "error: file: there is a file of that name\n");
  EXPECT_EQ(error({"sampler", "sky", "-o", "file/sky"}), "error: file/sky: cannot be made\n");
  EXPECT_EQ(error({"sampler"}), "name is required\nRun with --help for more information.\n");
  EXPECT_EQ(read_text(folder.path() / "full/a.txt"), "mine");
  std::vector<std::string> left;  // nothing half-written
  for (const auto& entry : fs::directory_iterator(folder.path())) left.push_back(entry.path().filename().string());
  std::sort(left.begin(), left.end());
  EXPECT_EQ(left, (std::vector<std::string>{"file", "full"}));
}

TEST(New, AnEmptyFolderIsFilled) {
  const TempFolder folder;
  fs::create_directory(folder.path() / "sky");
  EXPECT_EQ(run_brume({"new", "sampler", "sky"}, {.folder = folder.path()}).code, 0);
  EXPECT_TRUE(fs::exists(folder.path() / "sky/sky.cpp"));
}

TEST(New, ALoadedLibraryHasItsNames) {
  const TempFolder folder;
  const std::string library = Projects::get().library("sampler").string();
  const Finished done = run_brume({"new", "sampler", "my_sampler", "--plugin", library}, {.folder = folder.path()});
  EXPECT_EQ(done.err, "error: there is a sampler 'my_sampler' already (" + fs::canonical(library).string() + "); choose another name\n");
}

}  // namespace
}  // namespace brume::test
