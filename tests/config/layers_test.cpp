// Which room may include which (docs/design.md, 3), and that no two rooms include each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file;    ///< "framework/core/noise.cpp"
  std::string header;  ///< "config/errors.h"
  int line = 0;
  std::string text() const { return file + ":" + std::to_string(line) + " includes " + header; }
};

std::vector<Include> includes_of(std::istream& in, const std::string& file) {
  static const std::regex pattern(R"re(^\s*#\s*include\s*[<"]([^>"]+)[>"].*)re");
  std::vector<Include> all;
  std::string row;
  for (int line = 1; std::getline(in, row); ++line)
    if (std::smatch match; std::regex_match(row, match, pattern)) all.push_back({file, match[1], line});
  return all;
}

const std::vector<Include>& includes() {
  static const std::vector<Include> all = [] {
    std::vector<Include> found;
    for (const char* folder : {"framework", "plugins", "tools"})
      for (const auto& entry : fs::recursive_directory_iterator(fs::path(BRUME_SOURCE_DIR) / folder)) {
        if (entry.path().extension() != ".h" && entry.path().extension() != ".cpp") continue;
        std::ifstream in(entry.path());
        for (Include& i : includes_of(in, fs::relative(entry.path(), BRUME_SOURCE_DIR).string())) found.push_back(std::move(i));
      }
    return found;
  }();
  return all;
}

/// "interop/import" of framework/brume/interop/import/flags.cpp; "plugins" of all plugins.
std::string room_of(const std::string& file) {
  if (file.starts_with("plugins")) return "plugins";
  std::string room = fs::path(file).parent_path().string();
  const std::string framework = "framework/brume/";
  if (room.starts_with(framework)) room.erase(0, framework.size());
  return room;
}

/// The rooms that each room includes, besides itself.
const std::map<std::string, std::set<std::string>>& allowed() {
  static const std::map<std::string, std::set<std::string>> rooms = [] {
    std::map<std::string, std::set<std::string>> all;
    const auto room = [&](const char* name, std::set<std::string> below) { all[name] = std::move(below); };
    room("config", {});
    room("core", {"config"});
    room("distributed", {"config", "core"});
    room("text", {"config"});
    room("numerics", {"config", "core"});
    room("nn/ops/kernels", {});
    room("nn/ops", {"config", "core", "nn/ops/kernels"});
    room("nn/blocks", {"config", "core", "nn/ops"});
    room("files", {"config"});
    room("image", {"config", "core", "files"});
    room("weights", {"config", "core", "files", "image"});
    room("data/shapes", {"config", "core"});
    room("data", {"config", "core", "files", "weights"});
    room("interop/layouts", {"config", "core", "weights"});
    room("interop/import", {"config", "core", "files", "weights", "interop/layouts"});
    room("interop/export", {"config", "core", "files", "weights", "interop/layouts", "interop/import"});
    room("interop", {"config", "core", "text", "files", "weights", "interop/layouts", "interop/import"});
    const std::set<std::string> libraries{"config", "core",    "text", "numerics",        "nn/ops",         "nn/blocks",   "files",
                                          "image",  "weights", "data", "interop/layouts", "interop/import", "data/shapes", "interop"};
    room("plugins", libraries);
    std::set<std::string> below = libraries;
    below.insert("distributed");
    room("diffusion", below);
    below.insert("diffusion");
    room("framework/brume", below);  // the front door
    room("conform", {"config", "core", "numerics"});
    room("train", below);
    room("experiments", {"config", "core", "files", "weights", "train"});
    below.merge(std::set<std::string>{"framework/brume", "train", "experiments", "interop/export", "conform"});
    room("tools/program", below);
    below.insert("tools/program");
    room("tools/plot", below);
    room("tools/sampling", below);
    room("tools/bench", below);
    below.merge(std::set<std::string>{"tools/sampling", "tools/plot", "tools/bench"});
    room("tools/serve", below);
    below.insert("tools/serve");
    room("tools/commands", below);
    below.insert("tools/commands");
    room("tools", below);
    return all;
  }();
  return rooms;
}

bool of_torch(const std::string& header) {
  return header.starts_with("torch/") || header.starts_with("ATen/") || header.starts_with("c10/") || header.starts_with("caffe2/");
}

TEST(Layers, TheSourcesAreFound) {
  EXPECT_GT(includes().size(), 300u);
  std::set<std::string> rooms;
  for (const Include& i : includes()) rooms.insert(room_of(i.file));
  for (const auto& [room, _] : allowed()) EXPECT_TRUE(rooms.contains(room)) << room;
}

TEST(Layers, EveryFolderIsARoom) {
  for (const Include& i : includes()) EXPECT_TRUE(allowed().contains(room_of(i.file))) << i.file << ": which room is this?";
}

/// The file that an include names, as a path from the root; empty for headers of other libraries.
std::string included(const Include& i) {
  for (const char* root : {"framework/", "tools/"})
    if (fs::exists(fs::path(BRUME_SOURCE_DIR) / root / i.header)) return root + i.header;
  return "";
}

TEST(Layers, IncludeOnlyWhatIsBelow) {
  for (const Include& i : includes()) {
    const std::string target = included(i), here = room_of(i.file);
    if (target.empty() || room_of(target) == here || !allowed().contains(here)) continue;
    EXPECT_TRUE(allowed().at(here).contains(room_of(target))) << i.text();
  }
}

TEST(Layers, NoTwoRoomsIncludeEachOther) {
  // Rooms that are below themselves, by the closure of what is allowed.
  std::map<std::string, std::set<std::string>> below = allowed();
  for (size_t round = 0; round < below.size(); ++round)
    for (auto& [room, reached] : below)
      for (const std::string& next : std::set<std::string>(reached)) reached.insert(below[next].begin(), below[next].end());
  for (const auto& [room, reached] : below) EXPECT_FALSE(reached.contains(room)) << room;
}

/// Follows the includes of one file; fills `way` with a circle if it finds one.
bool circle_from(const std::string& file, const std::map<std::string, std::set<std::string>>& arrows, std::set<std::string>& done,
                 std::vector<std::string>& way) {
  if (std::find(way.begin(), way.end(), file) != way.end()) return way.push_back(file), true;
  if (done.contains(file)) return false;
  way.push_back(file);
  if (const auto at = arrows.find(file); at != arrows.end())
    for (const std::string& next : at->second)
      if (circle_from(next, arrows, done, way)) return true;
  way.pop_back();
  done.insert(file);
  return false;
}

TEST(Layers, NoCircleOfFiles) {
  std::map<std::string, std::set<std::string>> arrows;
  for (const Include& i : includes())
    if (const std::string target = included(i); !target.empty()) arrows[i.file].insert(target);
  std::set<std::string> done;
  for (const auto& [file, _] : arrows) {
    std::vector<std::string> way;
    EXPECT_FALSE(circle_from(file, arrows, done, way)) << testing::PrintToString(way);
  }
}

/// Every file that `file` includes, directly or not.
std::set<std::string> included_by(const std::string& file) {
  std::set<std::string> reached;
  std::vector<std::string> next{file};
  while (!next.empty()) {
    const std::string at = next.back();
    next.pop_back();
    if (!reached.insert(at).second) continue;
    for (const Include& i : includes())
      if (i.file == at)
        if (const std::string target = included(i); !target.empty()) next.push_back(target);
  }
  return reached;
}

TEST(Layers, WhoOnlySamplesIncludesNothingOfTraining) {
  for (const char* file : {"framework/brume/model.h", "framework/brume/model.cpp", "tools/commands/sample.cpp"}) {
    const std::set<std::string> reached = included_by(file);
    EXPECT_GT(reached.size(), 10u) << file;
    for (const std::string& other : reached) EXPECT_FALSE(other.starts_with("framework/brume/train/")) << file << " includes " << other;
  }
}

TEST(Layers, NoPathsAroundTheLayers) {
  for (const Include& i : includes()) EXPECT_EQ(i.header.find(".."), std::string::npos) << i.text();
}

TEST(Layers, ConfigKnowsNoTorch) {
  for (const Include& i : includes()) {
    if (room_of(i.file) != "config" || !of_torch(i.header)) continue;
    const bool version = i.header == "torch/version.h" &&
                         (i.file == "framework/brume/config/plugin.h" || i.file == "framework/brume/config/plugin_loader.cpp");
    EXPECT_TRUE(version) << i.text();
  }
}

TEST(Layers, OnlyOneFileKnowsYamlCpp) {
  for (const Include& i : includes())
    if (i.header.starts_with("yaml-cpp/")) {
      EXPECT_EQ(i.file, "framework/brume/config/yaml.cpp") << i.text();
    }
}

TEST(Layers, OnlyTheShimKnowsSentencepiece) {
  for (const Include& i : includes()) EXPECT_FALSE(i.header.starts_with("sentencepiece_")) << i.text();
}

TEST(Layers, WholeTorchOnlyWhereNetworksAreMade) {
  for (const Include& i : includes()) {
    if (i.header != "torch/torch.h" && i.header != "torch/all.h" && i.header != "ATen/ATen.h") continue;
    bool may = false;
    for (const char* folder : {"framework/brume/nn/", "framework/brume/train/", "plugins/networks/", "plugins/autoencoders/"})
      may = may || i.file.starts_with(folder);
    EXPECT_TRUE(may) << i.text();
  }
}

TEST(Layers, APluginIsOneSourceWithoutAHeader) {
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(BRUME_SOURCE_DIR) / "plugins"))
    if (entry.is_regular_file()) {
      EXPECT_EQ(entry.path().extension(), ".cpp") << entry.path();
    }
  for (const Include& i : includes()) EXPECT_FALSE(i.header.starts_with("plugins/")) << i.text();
}

/// Source lines of the library that match, without comments.
std::vector<std::string> lines_with(const std::regex& pattern) {
  std::vector<std::string> found;
  for (const char* folder : {"framework", "plugins"})
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(BRUME_SOURCE_DIR) / folder)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path());
      std::string row;
      for (int line = 1; std::getline(in, row); ++line)
        if (std::regex_search(row.substr(0, row.find("//")), pattern))
          found.push_back(fs::relative(entry.path(), BRUME_SOURCE_DIR).string() + ":" + std::to_string(line) + ":" + row);
    }
  return found;
}

TEST(Layers, TheLibraryPrintsNothingAndNamesNoOption) {
  const std::vector<std::string> prints = lines_with(std::regex(R"(std::(cerr|cout|puts|printf)|fmt::print\(|\b(stderr|stdout)\b)"));
  EXPECT_TRUE(prints.empty()) << testing::PrintToString(prints);
  const std::vector<std::string> options = lines_with(std::regex(R"re("([^"]*[^-a-z"])?--[a-z][^"]*")re"));
  // The head of the reference, which the program generates.
  const auto known = [](const std::string& line) { return line.starts_with("framework/brume/config/describe.cpp:"); };
  for (const std::string& line : options) EXPECT_TRUE(known(line)) << line;
}

TEST(Layers, OneSourceKnowsTheCommandLineLibrary) {
  for (const Include& i : includes())
    if (i.header.starts_with("CLI/")) {
      EXPECT_EQ(i.file, "tools/program/command_line.cpp") << i.text();
    }
}

/// The headers that are installed, as "core/noise.h".
std::set<std::string> installed() {
  std::ifstream in(fs::path(BRUME_SOURCE_DIR) / "cmake/BrumeHeaders.cmake");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto list = [&](const std::string& name) {
    const size_t begin = text.find("set(" + name) + name.size() + 4;
    std::istringstream words(text.substr(begin, text.find(')', begin) - begin));
    return std::vector<std::string>(std::istream_iterator<std::string>(words), {});
  };
  std::set<std::string> all;
  for (const std::string& header : list("BRUME_API_HEADERS")) all.insert(header);
  for (const std::string& room : list("BRUME_API_ROOMS"))
    for (const auto& entry : fs::directory_iterator(fs::path(BRUME_SOURCE_DIR) / "framework/brume" / room))
      if (entry.path().extension() == ".h") all.insert(room + "/" + entry.path().filename().string());
  for (const std::string& header : list("BRUME_INTERNAL_HEADERS")) EXPECT_EQ(all.erase(header), 1u) << header;
  return all;
}

TEST(Layers, InstalledHeadersIncludeInstalledOnes) {
  const std::set<std::string> api = installed();
  ASSERT_TRUE(api.contains("model.h") && api.contains("core/sampler.h"));
  for (const Include& i : includes())
    if (i.header.starts_with("brume/") && i.file.starts_with("framework/brume/") && api.contains(i.file.substr(16))) {
      EXPECT_TRUE(api.contains(i.header.substr(6))) << i.text();
    }
}

TEST(Layers, IncludesAreSeen) {
  std::istringstream in("#include <a/b.h>\n  # include \"c.h\"  // why\n// #include <no.h>\n#include<d.h>\n");
  const auto found = includes_of(in, "x.cpp");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[1].text(), "x.cpp:2 includes c.h");
}

}  // namespace
