// Plugin libraries: what is refused, in which words, before anything of them runs; and the ways to name one.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>

#include <algorithm>
#include <regex>

#include "brume/config/plugin_loader.h"
#include "cli/new_projects.h"

namespace brume::test {
namespace {

/// A library with a record made by hand, as a program of another time or place would have made it.
struct Record {
  std::string magic = "0x42524d45", size = "176", api = std::to_string(plugin_api), abi = "1", torch = TORCH_VERSION,
              compiler = __VERSION__;
};

class PluginLibraries : public testing::Test {
 protected:
  /// Compiles C++ (without any header) into a library of this folder.
  std::string library(const std::string& name, const std::string& source) const {
    const std::string file = folder_.file(name + ".cpp", source), made = folder_.file("lib" + name + ".so");
    const Finished done = run({cmake_cache("CMAKE_CXX_COMPILER"), "-w", "-shared", "-fPIC", "-o", made, file});
    EXPECT_EQ(done.code, 0) << done.err;
    return made;
  }
  static std::string record(const Record& r) {
    return "struct Abi { unsigned magic, size, api, abi; char torch[32], compiler[64], name[64]; };\n"
           "extern \"C\" __attribute__((used, section(\".brume_abi\"))) const Abi brume_plugin_abi = {" +
           r.magic + ", " + r.size + ", " + r.api + ", " + r.abi + ", \"" + r.torch + "\", \"" + r.compiler + "\", \"toy\"};\n";
  }
  /// What loading says, with the library called LIB.
  static std::string said(const std::string& file) {
    Registry registry = builtins();
    std::string text = error_of([&] { load_plugin(registry, file); });
    EXPECT_EQ(registry.libraries(), std::vector<std::string>{});
    for (size_t at; (at = text.find(file)) != std::string::npos;) text.replace(at, file.size(), "LIB");
    return text;
  }
  TempFolder folder_;
};

TEST_F(PluginLibraries, TheRecordIsWhereTheTestsThinkItIs) {
  EXPECT_EQ(std::to_string(sizeof(PluginAbi)), Record{}.size);
  EXPECT_EQ(std::to_string(plugin_api), Record{}.api);
  const auto abi = read_plugin_abi(Projects::get().library("sampler"));
  ASSERT_TRUE(abi);
  EXPECT_EQ(abi->magic, plugin_magic);
  EXPECT_EQ(abi->size, sizeof(PluginAbi));
  EXPECT_EQ(abi->api, plugin_api);
  EXPECT_STREQ(abi->torch, TORCH_VERSION);
  EXPECT_STREQ(abi->compiler, __VERSION__);
  EXPECT_STREQ(abi->name, "my_sampler");
}

TEST_F(PluginLibraries, BuiltForSomethingElse) {
  const std::string torch = TORCH_VERSION, compiler = __VERSION__;
  EXPECT_EQ(said(library("api", record({.api = "77"}))),
            "LIB: built for plugin API 77, this brume has " + std::to_string(plugin_api) + "; rebuild the plugin");
  EXPECT_EQ(said(library("longer", record({.size = "180", .api = "78"}))),
            "LIB: built for plugin API 78, this brume has " + std::to_string(plugin_api) + "; rebuild the plugin");
  EXPECT_EQ(said(library("torch", record({.torch = "1.4.0"}))),
            "LIB: built for LibTorch 1.4.0, this brume has " + torch + "; rebuild the plugin");
  EXPECT_EQ(said(library("abi", record({.abi = "0"}))), "LIB: built for C++11 ABI 0, this brume has 1; rebuild the plugin");
  EXPECT_EQ(said(library("compiler", record({.compiler = "4.8.5"}))),
            "LIB: built for compiler 4.8.5, this brume has " + compiler + "; rebuild the plugin");
  EXPECT_EQ(said(library("magic", record({.magic = "0xdeadbeef"}))), "LIB: not a brume plugin (its record begins with 0xdeadbeef)");
}

// A library for another LibTorch could not be loaded to be asked, and loading one runs its constructors.
TEST_F(PluginLibraries, NothingRunsBeforeTheRecordIsChecked) {
  const std::string proof = folder_.file("proof");
  const std::string body =
      "extern \"C\" int creat(const char*, unsigned); void nowhere_to_be_found();\n"
      "struct Eager { Eager() { creat(\"" +
      proof + "\", 0600); nowhere_to_be_found(); } } eager;\n";
  EXPECT_EQ(said(library("old", body + record({.torch = "1.4.0"}))),
            std::string("LIB: built for LibTorch 1.4.0, this brume has ") + TORCH_VERSION + "; rebuild the plugin");
  EXPECT_EQ(said(library("current", body + record({}))), "LIB: cannot be loaded: LIB: undefined symbol: _Z19nowhere_to_be_foundv");
  EXPECT_FALSE(fs::exists(proof));
}

TEST_F(PluginLibraries, NotAPlugin) {
  EXPECT_EQ(said(library("plain", "int x;")), "LIB: not a brume plugin (it has no BRUME_PLUGIN)");
  EXPECT_EQ(said(library("idle", record({}))), "LIB: not a brume plugin (it registers nothing)");
  EXPECT_EQ(said(library("short", "__attribute__((used, section(\".brume_abi\"))) const char x[4] = {1, 2, 3, 4};")),
            "LIB: not a brume plugin (its record begins with 0x4030201)");
  EXPECT_EQ(said(folder_.file("text.so", "#!/bin/sh\n")), "LIB: not a shared library");
  EXPECT_EQ(said(folder_.file("empty.so", "")), "LIB: not a shared library");
  EXPECT_EQ(said(BRUME_BINARY_DIR "/libbrume.so"), "LIB: not a brume plugin (it has no BRUME_PLUGIN)");
  EXPECT_EQ(said(folder_.file("nowhere.so")), "LIB: no such plugin library");
  EXPECT_EQ(said(folder_.path().string()), "LIB: no such plugin library");
}

// Cut anywhere, a library is refused, not read beyond its end.
TEST_F(PluginLibraries, Truncated) {
  const std::string whole = read_text(library("whole", record({})));
  for (size_t length = 0; length < whole.size(); length += 61) {
    const std::string text = said(folder_.file("cut.so", whole.substr(0, length)));
    EXPECT_TRUE(text == "LIB: not a shared library" || text.starts_with("LIB: not a brume plugin (") ||
                text.starts_with("LIB: cannot be loaded: LIB: "))
        << length << ": " << text;
  }
}

TEST_F(PluginLibraries, ATakenNameIsRefusedAndNothingRegistered) {
  Registry registry = builtins();
  const std::string file = Projects::get().clash().string();
  EXPECT_EQ(error_of([&] { load_plugin(registry, file); }),
            "parameterization 'eps' is registered twice: by built-in and by " + fs::canonical(file).string());
  const std::vector<std::string> names = registry.names("parameterization");
  EXPECT_EQ(std::count(names.begin(), names.end(), "fresh"), 0);
  EXPECT_EQ(registry.libraries(), std::vector<std::string>{});
}

TEST_F(PluginLibraries, TwoLibrariesWithOneName) {
  const fs::path first = Projects::get().library("spacing"), second = folder_.path() / "copy.so";
  fs::copy(first, second);
  Registry registry = builtins();
  load_plugin(registry, first);
  EXPECT_EQ(error_of([&] { load_plugin(registry, second); }),
            "spacing 'my_spacing' is registered twice: by " + fs::canonical(first).string() + " and by " + fs::canonical(second).string());
}

TEST_F(PluginLibraries, LoadingTwiceIsHarmless) {
  const fs::path library = Projects::get().library("spacing");
  fs::create_symlink(library, folder_.path() / "alias.so");
  Registry registry = builtins(), other = builtins();
  EXPECT_EQ(load_plugin(registry, library), fs::canonical(library));
  EXPECT_EQ(load_plugin(registry, library), fs::canonical(library));
  EXPECT_EQ(load_plugin(registry, folder_.path() / "alias.so"), fs::canonical(library));
  EXPECT_EQ(registry.libraries(), std::vector<std::string>{fs::canonical(library).string()});
  load_plugin(other, library);
  EXPECT_EQ(other.entry("spacing", "my_spacing").origin, fs::canonical(library).string());
}

class NamingPlugins : public testing::Test {
 protected:
  const Projects& projects_ = Projects::get();
  const std::string library_ = projects_.library("sampler").string(), config_ = (projects_.folder("sampler") / "test.yaml").string();
  const std::string fine_ = config_ + ": no mistakes\n";
  TempFolder folder_;
};

TEST_F(NamingPlugins, TheOptionStandsAnywhere) {
  EXPECT_EQ(run_brume({"--plugin", library_, "check", config_}).out, fine_);
  EXPECT_EQ(run_brume({"check", "--plugin", library_, config_}).out, fine_);
  EXPECT_EQ(run_brume({"check", config_, "--plugin", library_}).out, fine_);
  EXPECT_EQ(run_brume({"check", config_, "--plugin=" + library_}).out, fine_);
  EXPECT_EQ(
      run_brume({"--plugin", projects_.library("spacing").string(), "check", "--plugin", library_, config_, "--plugin", library_}).out,
      fine_);
}

TEST_F(NamingPlugins, AVariable) {
  const std::string folder = projects_.library("sampler").parent_path().string(),
                    other = projects_.library("spacing").parent_path().string();
  EXPECT_EQ(run_brume({"check", config_}, {.folder = {}, .variables = {{"BRUME_PLUGIN_PATH", folder}}}).out, fine_);
  EXPECT_EQ(
      run_brume({"check", config_, "--plugin", library_}, {.folder = {}, .variables = {{"BRUME_PLUGIN_PATH", ":" + other + ":" + folder}}})
          .out,
      fine_);
  EXPECT_EQ(run_brume({"list"}, {.folder = {}, .variables = {{"BRUME_PLUGIN_PATH", "/nowhere/at/all"}}}).err,
            "error: BRUME_PLUGIN_PATH: no folder '/nowhere/at/all'\n");
}

TEST_F(NamingPlugins, TheConfiguration) {
  const std::string text = read_text(config_), named = folder_.file("named.yaml", text + "\nplugins: [\"" + library_ + "\"]\n");
  EXPECT_EQ(run_brume({"check", named}).out, named + ": no mistakes\n");
  EXPECT_EQ(run_brume({"check", config_, "--set", "plugins=[" + library_ + "]"}).out, fine_);
  const std::string wrong = folder_.file("wrong.yaml", "model: {network: unet}\nplugins: [nowhere.so]\n");
  EXPECT_EQ(run_brume({"check", wrong}).err, "error: " + wrong + ":2:11: plugins: nowhere.so: no such plugin library\n");
}

TEST_F(NamingPlugins, NeverTheCurrentFolderByItself) {
  fs::copy(library_, folder_.path() / "libmy_sampler.so");
  fs::copy(config_, folder_.path() / "test.yaml");
  for (const char* path : {"", ":", "::"}) {
    const Finished done = run_brume({"check", "test.yaml"}, {.folder = folder_.path(), .variables = {{"BRUME_PLUGIN_PATH", path}}});
    EXPECT_EQ(done.code, 2);
    EXPECT_EQ(done.err.find("libmy_sampler"), std::string::npos) << done.err;
  }
  EXPECT_EQ(run_brume({"check", "test.yaml", "--plugin", "libmy_sampler.so"}, {.folder = folder_.path()}).out, "test.yaml: no mistakes\n");
}

// A mistake found by the code of a library is reported like any other: thrown there, placed here.
TEST_F(NamingPlugins, ErrorsOfALibraryHaveTheirPlace) {
  const std::string config = (projects_.folder("dataset") / "test.yaml").string(), library = projects_.library("dataset").string();
  const Finished done = run_brume({"check", config, "--plugin", library, "--set", "train.data={type: my_dataset, waves: 9}"});
  EXPECT_EQ(
      done.err,
      "error: --set train.data={type: my_dataset, waves: 9}: train.data: waves = 9 are too fine for images of 3x16x16, which show 4\n");
}

class Checkpoints : public NamingPlugins {
 protected:
  /// Trains the test configuration of a kind for two steps; returns the model file.
  std::string train(const std::string& kind, const Surroundings& where, const std::vector<std::string>& more) const {
    std::vector<std::string> words{"train", (projects_.folder(kind) / "test.yaml").string(),
                                   "--set", "train.steps=2",
                                   "--set", "train.preview.count=0",
                                   "--out", folder_.file("run")};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = run_brume(words, where);
    EXPECT_EQ(done.code, 0) << done.err;
    return folder_.file("run/model.safetensors");
  }
  std::string hint(const std::string& file, const std::string& kind) const {
    const fs::path library = fs::canonical(projects_.library(kind));
    return "error: " + file + ": was made with the plugin library " + library.filename().string() +
           "; load it as a plugin: " + library.string() + "\n";
  }
};

TEST_F(Checkpoints, NameTheLibrariesTheyNeed) {
  const std::string library = projects_.library("parameterization").string(), model = train("parameterization", {}, {"--plugin", library});
  const Finished without = run_brume({"sample", model, "-n", "1", "--steps", "1", "-o", folder_.file("x.png")});
  EXPECT_EQ(without.code, 2);
  // Which line it is, every new field of a plugin in the configuration changes.
  EXPECT_EQ(std::regex_replace(without.err, std::regex(R"(\(model\):\d+:9:)"), "(model):LINE:9:"),
            "error: " + model + " (model):LINE:9: model.parameterization: unknown parameterization 'my_parameterization'; known: " +
                fmt::format("{}", fmt::join(builtins().names("parameterization"), ", ")) + "\n" + hint(model, "parameterization"));
  EXPECT_EQ(run_brume({"sample", model, "-n", "1", "--steps", "1", "-o", folder_.file("x.png"), "--plugin", library}).code, 0);
  // Moved, it is the same library.
  fs::copy(library, folder_.path() / "libmy_parameterization.so");
  EXPECT_EQ(run_brume({"sample", model, "-n", "1", "--steps", "1", "-o", "x.png", "--plugin", "libmy_parameterization.so"},
                      {.folder = folder_.path()})
                .code,
            0);
}

TEST_F(Checkpoints, ALibraryOfTheVariableIsNamedToo) {
  const Surroundings where{.folder = {}, .variables = {{"BRUME_PLUGIN_PATH", projects_.library("sampler").parent_path().string()}}};
  const std::string model = train("sampler", where, {});
  const std::vector<std::string> words{"sample", model, "-n", "1", "--steps", "1", "-o", folder_.file("x.png")};
  const Finished without = run_brume(words);
  EXPECT_TRUE(without.err.ends_with(hint(model, "sampler"))) << without.err;
  EXPECT_EQ(run_brume(words, where).code, 0);
  // What is not used any more is not missed.
  std::vector<std::string> ddim = words;
  ddim.insert(ddim.end(), {"--sampler", "ddim"});
  EXPECT_EQ(run_brume(ddim).code, 0);
}

TEST_F(Checkpoints, ALibraryThatOnlyTrainingUsedIsNotNeeded) {
  const std::string model = train("optimizer", {}, {"--plugin", projects_.library("optimizer").string(), "--plugin", library_});
  EXPECT_EQ(run_brume({"sample", model, "-n", "1", "--steps", "1", "-o", folder_.file("x.png")}).err.find("error"), std::string::npos);
  EXPECT_NE(read_text(folder_.file("run/config.yaml")).find("plugins: [" + fs::canonical(projects_.library("optimizer")).string() + "]\n"),
            std::string::npos);
}

// A training file names its libraries; that alone loads nothing.
TEST_F(Checkpoints, ResumingAsksForTheLibraries) {
  const std::string library = projects_.library("optimizer").string();
  train("optimizer", {}, {"--set", "plugins=[" + library + "]"});
  const std::string file = folder_.file("run/training.safetensors");
  const std::vector<std::string> words{"train", "--resume", folder_.file("run"), "--set", "train.steps=3"};
  const Finished without = run_brume(words);
  EXPECT_EQ(without.code, 2);
  EXPECT_TRUE(without.err.ends_with(hint(file, "optimizer"))) << without.err;
  std::vector<std::string> with = words;
  with.insert(with.end(), {"--plugin", library});
  const Finished resumed = run_brume(with);
  EXPECT_EQ(resumed.code, 0) << resumed.err;
}

}  // namespace
}  // namespace brume::test
