// Images and labels of MNIST's format, as the data set `idx` reads them: all of its images.
#include "brume/config/registry.h"
#include "brume/core/dataset.h"
#include "input.h"

namespace brume::plugins {
void register_dataset_idx(Registry&);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brume;
  static const Registry registry = [] {
    Registry all;
    plugins::register_dataset_idx(all);
    return all;
  }();
  return fuzz::try_to(data, size, [] {
    const std::string file = fuzz::as_file("idx");
    Value options = Value::map();
    options.set("type", Value::text("idx"));
    options.set("images", Value::text(file));
    if (fuzz::input.size() % 2) options.set("labels", Value::text(file));
    const auto set = create_deferred<Dataset>(registry, options).make({{1, 2, 3}});
    std::vector<float> pixels(6);
    for (int64_t i = 0; i < std::min<int64_t>(set->size(), 10); ++i) set->read(i, 0, pixels);
  });
}
