#pragma once
// What the tests of out-of-tree plugins share, made once per test program: brume installed into a prefix, a project of
// `brume new` for every kind of plugin, the example of the documentation, all of them built against that prefix.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/process.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace fs = std::filesystem;

/// "x\ny\n" -> {"x", "y"}.
inline std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// A variable of this build's CMake cache; "" if it has no such variable.
inline std::string cmake_cache(const std::string& name) {
  for (const std::string& line : lines_of(read_text(fs::path(BRUME_BINARY_DIR) / "CMakeCache.txt")))
    if (line.starts_with(name + ":")) return line.substr(line.find('=') + 1);
  return "";
}

class Projects final {
 public:
  /// Throws the error of the first call again if the projects cannot be built: a second attempt takes minutes and fails as well.
  static const Projects& get() {
    static std::string error;
    static const std::unique_ptr<const Projects> projects = [] {
      try {
        return std::unique_ptr<const Projects>(new Projects);
      } catch (const std::exception& e) {
        error = e.what();
        return std::unique_ptr<const Projects>();
      }
    }();
    if (!projects) throw std::runtime_error(error);
    return *projects;
  }

  fs::path prefix() const { return root_.path() / "prefix"; }
  fs::path folder(const std::string& kind) const { return root_.path() / kind; }
  fs::path library(const std::string& kind) const { return root_.path() / "build" / kind / ("libmy_" + kind + ".so"); }
  /// Registers two parameterizations: `fresh`, then `eps`, which is taken.
  fs::path clash() const { return root_.path() / "build/clash/libclash.so"; }
  fs::path embed() const { return root_.path() / "build/embed/embed"; }
  fs::path example() const { return root_.path() / "example"; }
  fs::path example_library() const { return root_.path() / "build/example/libralston.so"; }
  /// Kinds that `brume new` writes.
  static std::vector<std::string> kinds() {
    std::vector<std::string> all = builtins().kinds();
    for (const char* own : {"adapter", "control"}) std::erase(all, own);
    return all;
  }
  Finished run_installed(std::vector<std::string> arguments, const Surroundings& where = {}) const {
    arguments.insert(arguments.begin(), (prefix() / "bin/brume").string());
    return run(arguments, where);
  }

 private:
  Projects() {
    must({"cmake", "--install", BRUME_BINARY_DIR, "--prefix", prefix().string()});
    std::string all = "cmake_minimum_required(VERSION 3.25)\nproject(all LANGUAGES CXX)\nfind_package(brume REQUIRED)\n";
    for (const std::string& kind : kinds()) {
      must({(prefix() / "bin/brume").string(), "new", kind, "my_" + kind, "-o", folder(kind).string()});
      all += "add_subdirectory(" + kind + ")\n";
    }
    fs::copy(fs::path(BRUME_SOURCE_DIR) / "docs/examples/out_of_tree_plugin", example());
    write_clash();
    write_headers();
    write_in_tree();
    fs::copy(fs::path(BRUME_SOURCE_DIR) / "docs/examples/embed", root_.path() / "embed");
    all += "add_subdirectory(example)\nadd_subdirectory(clash)\nadd_subdirectory(headers)\nadd_subdirectory(embed)\n";
    all += "add_library(in_tree OBJECT in_tree.cpp)\ntarget_link_libraries(in_tree PRIVATE brume::brume)\n";
    root_.file("CMakeLists.txt", all);
    std::vector<std::string> configure{"cmake",
                                       "-G",
                                       "Ninja",
                                       "-S",
                                       root_.path().string(),
                                       "-B",
                                       root_.file("build"),
                                       "-DCMAKE_PREFIX_PATH=" + prefix().string(),
                                       "-DCMAKE_CXX_FLAGS=-Werror",
                                       "-DCMAKE_CXX_COMPILER=" + cmake_cache("CMAKE_CXX_COMPILER")};
    // The folder has another name each time; ccache is not to care.
    if (const std::string ccache = cmake_cache("CCACHE"); ccache.find("NOTFOUND") == std::string::npos && !ccache.empty())
      configure.push_back("-DCMAKE_CXX_COMPILER_LAUNCHER=cmake;-E;env;CCACHE_BASEDIR=" + root_.path().string() + ";CCACHE_NOHASHDIR=1;" +
                          ccache);
    must(configure);
    must({"cmake", "--build", root_.file("build")});
  }

  static void must(const std::vector<std::string>& words) {
    const Finished done = run(words);
    if (done.code == 0) return;
    std::string line;
    for (const std::string& w : words) line += w + " ";
    throw std::runtime_error(line + "\n" + done.out + done.err);
  }

  void write_clash() const {
    must({(prefix() / "bin/brume").string(), "new", "parameterization", "clash", "-o", folder("clash").string()});
    std::string source = read_text(folder("clash") / "clash.cpp");
    source.insert(source.rfind("registry.add"), R"(registry.add<Parameterization, Clash>("fresh", "first"); )");
    const std::string name = R"(Clash>("clash")";
    source.replace(source.rfind(name), name.size(), R"(Clash>("eps")");
    root_.file("clash/clash.cpp", source);
  }

  /// One source for each installed header, which includes it alone.
  void write_headers() const {
    const fs::path include = prefix() / "include";
    std::string sources;
    for (const auto& entry : fs::recursive_directory_iterator(include)) {
      if (entry.path().extension() != ".h") continue;
      const std::string header = fs::relative(entry.path(), include).string();
      std::string name = header;
      for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      root_.file("headers/" + name + ".cpp", "#include <" + header + ">\n");
      sources += " " + name + ".cpp";
    }
    root_.file("headers/CMakeLists.txt", "add_library(headers OBJECT" + sources +
                                             ")\ntarget_link_libraries(headers PRIVATE brume::brume)\n"
                                             "target_compile_options(headers PRIVATE -O0)\n");
  }

  /// The example as docs/add-a-plugin.md says it would stand in brume's own tree.
  void write_in_tree() const {
    std::string source = read_text(example() / "ralston.cpp");
    const auto change = [&](const std::string& from, const std::string& to) { source.replace(source.find(from), from.size(), to); };
    change("config/plugin.h", "config/registry.h");
    change("namespace {\nusing namespace brume;\n", "namespace brume::plugins {\nnamespace {\n");
    change("BRUME_PLUGIN(\"ralston\") { registry.add",
           "void register_sampler_ralston(Registry&);\nvoid register_sampler_ralston(Registry& r) { r.add");
    root_.file("in_tree.cpp", source + "}  // namespace brume::plugins\n");
  }

  TempFolder root_;
};

}  // namespace brume::test
