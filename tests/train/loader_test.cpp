// Batches in order: the same for any number of workers, and from any step on.
#include "brume/train/loader.h"

#include <chrono>
#include <thread>

#include "brume/core/seed.h"
#include "support/registry.h"

namespace brume::test {
namespace {

/// Ten images that say their index and their draw, and take unequal time.
class Numbered final : public Dataset {
 public:
  explicit Numbered(int64_t broken = -1) : broken_(broken) {}
  int64_t size() const override { return 10; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    std::this_thread::sleep_for(std::chrono::microseconds(mix_seed(draw, 0) % 300));
    if (index == broken_) throw ConfigError("image " + std::to_string(index) + " is broken");
    pixels[0] = float(index);
    return {.label = index, .caption = std::to_string(draw)};
  }

 private:
  int64_t broken_;
  std::vector<std::string> classes_;
};

using Seen = std::vector<std::pair<float, std::string>>;

Seen batches(int64_t workers, int64_t first, int64_t last) {
  Loader loader(std::make_shared<Numbered>(), {1, 1, 1}, 3, 7, first, workers);
  Seen seen;
  for (int64_t step = first; step < last; ++step) {
    const Batch b = loader.next();
    for (int64_t i = 0; i < 3; ++i) seen.emplace_back(b.images.data_ptr<float>()[i], b.annotations[size_t(i)].caption);
  }
  return seen;
}

TEST(Loader, TheSameForAnyNumberOfWorkers) {
  const Seen in_place = batches(0, 0, 40);
  for (const int64_t workers : {1, 2, 5, 16}) EXPECT_EQ(batches(workers, 0, 40), in_place) << workers;
}

TEST(Loader, EveryEpochHasEveryImage) {
  const Seen seen = batches(3, 0, 40);
  for (size_t epoch = 0; epoch < 12; ++epoch) {
    std::vector<int> counts(10);
    for (size_t i = 0; i < 10; ++i) ++counts[size_t(seen[10 * epoch + i].first)];
    EXPECT_EQ(counts, std::vector<int>(10, 1)) << epoch;
  }
}

TEST(Loader, ResumesInPlace) {
  const Seen all = batches(2, 0, 40);
  for (const int64_t first : {1, 3, 17}) {
    const Seen rest = batches(4, first, 40);
    EXPECT_EQ(rest, Seen(all.begin() + 3 * first, all.end())) << first;
  }
}

TEST(Loader, AMistakeComesWhenItsBatchIsDue) {
  const Seen order = batches(0, 0, 4);
  const int64_t broken = int64_t(order[7].first);  // in the third batch
  for (const int64_t workers : {0, 1, 4}) {
    Loader loader(std::make_shared<Numbered>(broken), {1, 1, 1}, 3, 7, 0, workers);
    EXPECT_NO_THROW(loader.next());
    EXPECT_NO_THROW(loader.next());
    EXPECT_EQ(error_of([&] { loader.next(); }), "image " + std::to_string(broken) + " is broken");
  }
}

TEST(Loader, GoesWhileItReads) {
  for (int i = 0; i < 20; ++i) Loader(std::make_shared<Numbered>(), {1, 1, 1}, 50, 7, 0, 8);
}

}  // namespace
}  // namespace brume::test
