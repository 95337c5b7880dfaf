// config <- core <- nn, numerics, io, text <- diffusion, train <- tools: who may include whom (design.md, 3).
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
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

/// "core" of framework/core/…; "plugins", "tools".
std::string layer_of(const std::string& file) {
  const fs::path path(file);
  auto part = path.begin();
  if (*part == "framework") ++part;
  return *part;
}

const std::map<std::string, std::set<std::string>> allowed = {
    {"config", {"config"}},
    {"core", {"config", "core"}},
    {"nn", {"config", "core", "nn"}},
    {"numerics", {"config", "core", "numerics"}},
    {"io", {"config", "core", "io"}},
    {"text", {"config", "text"}},
    {"diffusion", {"config", "core", "nn", "numerics", "io", "text", "diffusion"}},
    {"train", {"config", "core", "nn", "numerics", "io", "text", "diffusion", "train"}},
    {"plugins", {"config", "core", "nn", "numerics", "io", "text"}},
    {"tools", {"config", "core", "nn", "numerics", "io", "text", "diffusion", "train"}},
};

bool of_torch(const std::string& header) {
  return header.starts_with("torch/") || header.starts_with("ATen/") || header.starts_with("c10/") || header.starts_with("caffe2/");
}

TEST(Layers, TheSourcesAreFound) {
  EXPECT_GT(includes().size(), 300u);
  std::set<std::string> layers;
  for (const Include& i : includes()) layers.insert(layer_of(i.file));
  for (const auto& [layer, _] : allowed) EXPECT_TRUE(layers.contains(layer)) << layer;
}

TEST(Layers, EveryFolderIsInALayer) {
  for (const Include& i : includes()) EXPECT_TRUE(allowed.contains(layer_of(i.file))) << i.file << ": which layer is this?";
}

TEST(Layers, IncludeOnlyWhatIsBelow) {
  for (const Include& i : includes()) {
    const std::string target = i.header.substr(0, i.header.find('/'));
    if (!allowed.contains(target) || i.header.find('/') == std::string::npos) continue;  // system headers, neighbours
    const auto here = allowed.find(layer_of(i.file));
    EXPECT_TRUE(here != allowed.end() && here->second.contains(target)) << i.text();
  }
}

TEST(Layers, NoPathsAroundTheLayers) {
  for (const Include& i : includes()) EXPECT_EQ(i.header.find(".."), std::string::npos) << i.text();
}

TEST(Layers, ConfigKnowsNoTorch) {
  for (const Include& i : includes()) {
    if (layer_of(i.file) != "config" || !of_torch(i.header)) continue;
    const bool version =
        i.header == "torch/version.h" && (i.file == "framework/config/plugin.h" || i.file == "framework/config/plugin_loader.cpp");
    EXPECT_TRUE(version) << i.text();
  }
}

TEST(Layers, OnlyOneFileKnowsYamlCpp) {
  for (const Include& i : includes())
    if (i.header.starts_with("yaml-cpp/")) {
      EXPECT_EQ(i.file, "framework/config/yaml.cpp") << i.text();
    }
}

TEST(Layers, OnlyTheShimKnowsSentencepiece) {
  for (const Include& i : includes()) EXPECT_FALSE(i.header.starts_with("sentencepiece_")) << i.text();
}

TEST(Layers, WholeTorchOnlyWhereNetworksAreMade) {
  for (const Include& i : includes()) {
    if (i.header != "torch/torch.h" && i.header != "torch/all.h" && i.header != "ATen/ATen.h") continue;
    bool may = false;
    for (const char* folder : {"framework/nn/", "framework/train/", "plugins/networks/", "plugins/autoencoders/"})
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

TEST(Layers, IncludesAreSeen) {
  std::istringstream in("#include <a/b.h>\n  # include \"c.h\"  // why\n// #include <no.h>\n#include<d.h>\n");
  const auto found = includes_of(in, "x.cpp");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[1].text(), "x.cpp:2 includes c.h");
}

}  // namespace
