// The installed brume: complete, and at home wherever it is put.
#include "cli/new_projects.h"

namespace brume::test {
namespace {

TEST(Install, TheProgramRuns) {
  const Finished version = Projects::get().run_installed({"--version"});
  EXPECT_EQ(version.code, 0) << version.err;
  EXPECT_TRUE(version.out.starts_with("brume 0.")) << version.out;
  EXPECT_EQ(version.out, run_brume({"--version"}).out);
}

TEST(Install, APrefixCanMove) {
  const TempFolder folder;
  fs::copy(Projects::get().prefix(), folder.path() / "moved", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  const Finished list = run({folder.file("moved/bin/brume"), "list", "sampler", "--plugin", Projects::get().library("sampler").string()});
  EXPECT_EQ(list.code, 0) << list.err;
  const Finished libraries = run({"ldd", folder.file("moved/bin/brume")});
  EXPECT_NE(libraries.out.find(folder.file("moved/bin/../lib")), std::string::npos) << libraries.out;
}

// sentencepiece is reached through a library that stands beside libbrume, and its absence is said.
TEST(Install, TextIsReadThere) {
  const TempFolder folder;
  const auto train = [&](const std::string& program) {
    return run({program, "tokenizer", "train", folder.file("a.txt", "a cat\na dog\n"), "--size", "11", "-o", folder.file("t.model")});
  };
  fs::copy(Projects::get().prefix(), folder.path() / "moved", fs::copy_options::recursive | fs::copy_options::copy_symlinks);
  std::vector<fs::path> shims;
  for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "moved"))
    if (entry.path().filename() == "libbrume_sentencepiece.so") shims.push_back(entry.path());
  if (shims.empty()) GTEST_SKIP() << "built without sentencepiece";
  ASSERT_EQ(shims.size(), 1u);
  const Finished done = train(folder.file("moved/bin/brume"));
  EXPECT_EQ(done.code, 0) << done.err;
  fs::remove(shims.front());
  const Finished without_it = train(folder.file("moved/bin/brume"));
  EXPECT_EQ(without_it.code, 2);
  EXPECT_NE(without_it.err.find("libbrume_sentencepiece.so is not there, and text needs it: brume was built without sentencepiece"),
            std::string::npos)
      << without_it.err;
}

// The program of the build tree and the installed one take the same libraries: there is one libbrume in each process.
TEST(Install, BothProgramsLoadAPlugin) {
  const Projects& projects = Projects::get();
  const std::string library = projects.example_library().string(), config = (projects.example() / "test.yaml").string();
  for (const Finished& done :
       {run_brume({"check", config, "--plugin", library}), projects.run_installed({"check", config, "--plugin", library})}) {
    EXPECT_EQ(done.err, "");
    EXPECT_EQ(done.out, config + ": no mistakes\n");
  }
}

TEST(Install, AnotherVersionIsNotFound) {
  const TempFolder folder;
  folder.file("CMakeLists.txt", "cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES NONE)\nfind_package(brume 99 REQUIRED)\n");
  const Finished done = run({"cmake", "-G", "Ninja", "-S", folder.path().string(), "-B", folder.file("b"),
                             "-DCMAKE_PREFIX_PATH=" + Projects::get().prefix().string()});
  EXPECT_NE(done.code, 0);
  EXPECT_NE(done.err.find("with requested version \"99\""), std::string::npos) << done.err;
}

}  // namespace
}  // namespace brume::test
