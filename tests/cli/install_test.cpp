// The installed brume: complete, and at home wherever it is put.
#include "brume/image/image.h"
#include "cli/new_projects.h"
#include "support/sanitizers.h"

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

// sentencepiece is reached through a library in the folder of libbrume, and its absence is said.
TEST(Install, TextIsReadThere) {
  if (sanitized) GTEST_SKIP() << "the address sanitizer refuses RTLD_DEEPBIND, with which sentencepiece is loaded";
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
  EXPECT_NE(without_it.err.find("libbrume_sentencepiece.so is missing, and text needs it: brume was built without sentencepiece"),
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

// The program of docs/examples/embed, built against the prefix, and nothing but the API's headers are there.
TEST(Install, AProgramEmbedsTheLibrary) {
  if (sanitized) GTEST_SKIP() << "a program without the sanitizer cannot load a library with it";
  const TempFolder folder;
  folder.file("m.yaml", "model: {image: {channels: 1, height: 4, width: 6}, network: gaussian, parameterization: x0}\n");
  const Finished done = run({Projects::get().embed().string(), "m.yaml", "."}, {folder.path()});
  EXPECT_EQ(done.code, 0) << done.err;
  const Finished same = run_brume({"sample", "m.yaml", "-n", "4", "--seed", "7", "--steps", "20", "-o", "made"}, {folder.path()});
  EXPECT_EQ(same.code, 0) << same.err;
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(read_image(folder.file(std::to_string(i) + ".png")), read_image(folder.file("made/0000" + std::to_string(i) + ".png"))) << i;
  const Finished absent = run({Projects::get().embed().string(), "absent.safetensors", "."}, {folder.path()});
  const Finished program = run_brume({"sample", "absent.safetensors"}, {folder.path()});
  EXPECT_EQ(absent.code, 1);
  EXPECT_EQ(absent.err, program.err) << "the exception has the text that the program prints";
}

TEST(Install, OnlyTheApiIsInstalled) {
  const fs::path include = Projects::get().prefix() / "include";
  for (const auto& entry : fs::directory_iterator(include)) EXPECT_EQ(entry.path().filename(), "brume");
  EXPECT_TRUE(fs::exists(include / "brume/model.h"));
  for (const auto& entry : fs::recursive_directory_iterator(include / "brume")) {
    const std::string path = fs::relative(entry.path(), include / "brume").string();
    for (const char* inner : {"kernels", "onednn", "_fused", "shim", "interop", "boundary", "memory_limit"})
      EXPECT_EQ(path.find(inner), std::string::npos) << path;
  }
}

// A project that has brume as a subproject links it, and gets no tests, no installed files and no flags of brume's.
TEST(Install, ASubprojectIsConfigured) {
  const TempFolder folder;
  folder.file("main.cpp", "#include <brume/model.h>\nint main() {}\n");
  folder.file("CMakeLists.txt", fmt::format("cmake_minimum_required(VERSION 3.25)\nproject(p LANGUAGES CXX)\nadd_subdirectory({} brume)\n"
                                            "add_executable(p main.cpp)\ntarget_link_libraries(p PRIVATE brume::brume)\n"
                                            "message(STATUS \"is ${{BRUME_TESTS}} ${{BRUME_INSTALL}} ${{CMAKE_CXX_FLAGS_RELEASE}}\")\n",
                                            BRUME_SOURCE_DIR));
  const Finished done = run({"cmake", "-G", "Ninja", "-S", folder.path().string(), "-B", folder.file("b"),
                             "-DCMAKE_CXX_FLAGS_RELEASE=-O3 -g", "-DCMAKE_PREFIX_PATH=" + cmake_cache("CMAKE_PREFIX_PATH"),
                             "-DCMAKE_CXX_COMPILER=" + cmake_cache("CMAKE_CXX_COMPILER"), "-DTorch_DIR=" + cmake_cache("Torch_DIR")});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find("is OFF OFF -O3 -g\n"), std::string::npos) << done.out;
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
