#pragma once
// What the tests of data sets share: a data set made from YAML as users make it, temporary folders, the text of an error.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "brume/config/registry.h"
#include "brume/config/yaml.h"
#include "brume/core/dataset.h"
#include "support/registry.h"

namespace brume::plugins {
void register_dataset_shapes(Registry&);
void register_dataset_idx(Registry&);
void register_dataset_image_folder(Registry&);
void register_dataset_captioned_folder(Registry&);
void register_dataset_webdataset(Registry&);
void register_dataset_mix(Registry&);
void register_metric_caption_accuracy(Registry&);
}  // namespace brume::plugins

namespace brume::test {

struct Picture {
  int64_t label = -2;
  std::string caption;
  std::vector<float> pixels;
  SizeIds sizes{};
  bool operator==(const Picture&) const = default;
  /// 0..255 at a place.
  long value(const ImageShape& shape, int64_t channel, int64_t y, int64_t x) const {
    return std::lround((pixels.at(static_cast<size_t>((channel * shape.height + y) * shape.width + x)) + 1) * 127.5f);
  }
};

struct Opened {
  std::shared_ptr<const Dataset> data;
  ImageShape shape;

  Opened(const std::string& yaml, ImageShape wanted) : shape(wanted) {
    Registry registry;
    plugins::register_dataset_shapes(registry);
    plugins::register_dataset_idx(registry);
    plugins::register_dataset_image_folder(registry);
    plugins::register_dataset_captioned_folder(registry);
    plugins::register_dataset_webdataset(registry);
    plugins::register_dataset_mix(registry);
    data = create_deferred<Dataset>(registry, parse_yaml(yaml, "x.yaml")).make({.shape = shape});
  }
  Picture read(int64_t index, uint64_t draw = 0) const {
    Picture p{.label = -2, .caption = {}, .pixels = std::vector<float>(static_cast<size_t>(shape.numel()), 99)};
    const Annotation a = data->read(index, draw, p.pixels);
    p.label = a.label;
    p.caption = a.caption;
    p.sizes = a.sizes;
    return p;
  }
};

inline std::string open_error(const std::string& yaml, ImageShape shape) {
  return error_of([&] { Opened(yaml, shape); });
}

/// Runs as another user if this one is root, whom permissions do not stop.
template <class F>
auto without_privileges(const F& run) {
  const bool root = geteuid() == 0;
  if (root && seteuid(65534) != 0) throw std::runtime_error("cannot become another user");
  const auto result = run();
  if (root && seteuid(0) != 0) throw std::runtime_error("cannot become root again");
  return result;
}

/// Images 0..count of 8 threads that start at different places are those of one.
inline void expect_same_on_8_threads(const Opened& set, int64_t count) {
  std::vector<Picture> serial;
  for (int64_t i = 0; i < count; ++i) serial.push_back(set.read(i, static_cast<uint64_t>(i)));
  std::vector<int> wrong(8, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      for (int64_t k = 0; k < count; ++k) {
        const int64_t i = (k + static_cast<int64_t>(t) * 17) % count;
        if (!(set.read(i, static_cast<uint64_t>(i)) == serial[static_cast<size_t>(i)])) ++wrong[t];
      }
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, std::vector<int>(8, 0));
}

/// A folder that goes with the test.
struct TempDir {
  std::filesystem::path path;
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "brume-test-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("cannot make " + name);
    path = name;
    std::filesystem::permissions(path, std::filesystem::perms(0755));
  }
  ~TempDir() { std::filesystem::remove_all(path); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(const std::string& name) const { return (path / name).string(); }
};

inline void write_file(const std::string& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
inline std::string read_file(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// The data that developers share and users do not have.
inline std::filesystem::path shared_data() {
  const char* given = std::getenv("BRUME_SHARED");
  return (given ? std::filesystem::path(given) : std::filesystem::path(BRUME_SOURCE_DIR) / ".." / "shared") / "data";
}

}  // namespace brume::test
