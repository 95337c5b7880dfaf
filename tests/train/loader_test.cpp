// Batches in order: the same for any number of workers, and from any step on.
#include "brume/train/loader.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "brume/core/image_files.h"
#include "brume/core/seed.h"
#include "brume/core/warnings.h"
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

/// Ten images, of which some cannot be read.
class Damaged final : public Dataset, public ImageFiles {
 public:
  Damaged(std::set<int64_t> broken, bool skips) : broken_(std::move(broken)), skips_(skips) {}
  int64_t size() const override { return 10; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t index, uint64_t, std::span<float> pixels) const override {
    check_image(index);
    pixels[0] = float(index);
    return {.label = index, .caption = {}};
  }
  const Inventory& inventory() const override { return inventory_; }
  bool skips_errors() const override { return skips_; }
  void check_image(int64_t index) const override {
    if (broken_.contains(index)) throw ConfigError("image " + std::to_string(index) + " is broken");
  }

 private:
  std::set<int64_t> broken_;
  bool skips_;
  std::vector<std::string> classes_;
  Inventory inventory_;
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

TEST(Loader, OthersStandInForImagesThatCannotBeRead) {
  const auto drawn = [](int64_t workers, int64_t first) {
    Loader loader(std::make_shared<Damaged>(std::set<int64_t>{2, 5}, true), {1, 1, 1}, 4, 7, first, workers);
    std::vector<float> seen;
    std::multiset<int64_t> unread;
    for (int64_t step = first; step < 15; ++step) {
      const Batch b = loader.next();
      for (int64_t i = 0; i < 4; ++i) {
        seen.push_back(b.images.data_ptr<float>()[i]);
        EXPECT_EQ(b.annotations[size_t(i)].label, int64_t(seen.back()));
        EXPECT_TRUE(seen.back() != 2 && seen.back() != 5);
      }
      for (const Unread& u : b.unread) {
        unread.insert(u.index);
        EXPECT_EQ(u.error, "image " + std::to_string(u.index) + " is broken");
      }
    }
    return std::pair(seen, unread);
  };
  const auto [seen, unread] = drawn(0, 0);
  EXPECT_GE(unread.count(2), 6u);  // once in every epoch, and where it would have stood in for another
  EXPECT_GE(unread.count(5), 6u);
  EXPECT_EQ(unread.count(2) + unread.count(5), unread.size());
  EXPECT_EQ(drawn(3, 0).first, seen);
  EXPECT_EQ(drawn(2, 6).first, std::vector<float>(seen.begin() + 24, seen.end()));
}

TEST(Loader, StopsIfNoImageCanBeRead) {
  const std::set<int64_t> all{0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  Loader skipping(std::make_shared<Damaged>(all, true), {1, 1, 1}, 1, 7, 0, 0);
  EXPECT_TRUE(error_of([&] { skipping.next(); }).starts_with("100 images in a row cannot be read; the last: image "));
  Loader stopping(std::make_shared<Damaged>(std::set<int64_t>{2}, false), {1, 1, 1}, 10, 7, 0, 0);
  EXPECT_EQ(error_of([&] { stopping.next(); }), "image 2 is broken");
}

/// Ten images of the same size in their files.
class Stored final : public Dataset {
 public:
  Stored(int64_t height, int64_t width) : height_(height), width_(width) {}
  int64_t size() const override { return 10; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t, uint64_t, std::span<float> pixels) const override {
    std::fill(pixels.begin(), pixels.end(), 0.F);
    Annotation a;
    a.sizes = {.original_height = height_, .original_width = width_, .target_height = 8, .target_width = 16};
    return a;
  }

 private:
  int64_t height_, width_;
  std::vector<std::string> classes_;
};

TEST(Loader, WarnsOnceOfImagesThatAreEnlargedMuch) {
  const auto said = [](int64_t height, int64_t width) {
    std::vector<std::string> all;
    const WarningScope warnings([&](const std::string& text) { all.push_back(text); });
    Loader loader(std::make_shared<Stored>(height, width), {1, 8, 16}, 4, 7, 0, 2);
    for (int step = 0; step < 5; ++step) loader.next();
    return all;
  };
  ASSERT_EQ(said(1, 1).size(), 1U);
  EXPECT_TRUE(said(1, 1).front().starts_with("an image of 1x1 pixels is enlarged to 16x8")) << said(1, 1).front();
  EXPECT_EQ(said(3, 32).size(), 1U);
  EXPECT_EQ(said(32, 7).size(), 1U);
  for (const auto& [height, width] : {std::pair{4, 8}, {8, 16}, {100, 100}, {0, 0}}) EXPECT_TRUE(said(height, width).empty()) << height;
}

TEST(Loader, RowsThatCannotBeReadAreDropped) {
  const Damaged data({1, 3}, true);
  std::vector<std::string> said;
  const WarningScope warnings([&](const std::string& text) { said.push_back(text); });
  const Batch batch = read_in_turn(data, {1, 1, 1}, 0, 5);
  ASSERT_EQ(batch.images.size(0), 3);
  for (const int64_t i : {0, 1, 2}) EXPECT_EQ(batch.images.data_ptr<float>()[i], float(2 * i));
  EXPECT_EQ(batch.annotations.at(2).label, 4);
  EXPECT_EQ(said, (std::vector<std::string>{"left out: image 1 is broken", "left out: image 3 is broken"}));
}

TEST(Loader, GoesWhileItReads) {
  for (int i = 0; i < 20; ++i) Loader(std::make_shared<Numbered>(), {1, 1, 1}, 50, 7, 0, 8);
}

/// Ten images in buckets of 6, 3 and 1 images; each says its index.
class Bucketed final : public Dataset, public Buckets {
 public:
  int64_t size() const override { return 10; }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t, uint64_t, std::span<float>) const override { throw std::logic_error("buckets are read by read_bucket()"); }
  std::vector<ImageShape> buckets() const override { return {{1, 2, 1}, {1, 1, 1}, {1, 1, 2}}; }
  size_t bucket_of(int64_t index) const override { return index < 6 ? 0 : index < 9 ? 1 : 2; }
  Annotation read_bucket(int64_t index, uint64_t draw, std::span<float> pixels) const override {
    std::fill(pixels.begin(), pixels.end(), float(index));
    return {.label = index, .caption = std::to_string(draw)};
  }

 private:
  std::vector<std::string> classes_;
};

TEST(Loader, ABatchIsOfOneBucket) {
  const auto data = std::make_shared<Bucketed>();
  constexpr int64_t batch = 2, per_epoch = 3 + 2 + 1;
  Loader loader(data, {1, 9, 9}, batch, 5, 0, 2), later(data, {1, 9, 9}, batch, 5, 8, 0);
  std::vector<std::map<int64_t, int>> seen(3);
  std::vector<std::vector<float>> order;
  for (int64_t step = 0; step < 3 * per_epoch; ++step) {
    const Batch b = loader.next();
    const size_t bucket = data->bucket_of(b.annotations[0].label);
    const ImageShape shape = data->buckets()[bucket];
    EXPECT_EQ(b.images.sizes(), at::IntArrayRef({batch, shape.channels, shape.height, shape.width}));
    for (const Annotation& a : b.annotations) {
      EXPECT_EQ(data->bucket_of(a.label), bucket);
      ++seen[size_t(step / per_epoch)][a.label];
    }
    order.push_back({float(b.annotations[0].label), float(b.annotations[1].label)});
    if (step >= 8) {
      EXPECT_TRUE(later.next().images.equal(b.images)) << "resumed at step 8, now " << step;
    }
  }
  for (const std::map<int64_t, int>& epoch : seen) {
    EXPECT_EQ(epoch.size(), 10u) << "each image is read in an epoch";
    for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(epoch.at(i), 1);
    EXPECT_EQ(epoch.at(6) + epoch.at(7) + epoch.at(8), 4);
    EXPECT_EQ(epoch.at(9), 2);
  }
  EXPECT_NE(std::vector(order.begin(), order.begin() + per_epoch), std::vector(order.begin() + per_epoch, order.begin() + 2 * per_epoch));
}

}  // namespace
}  // namespace brume::test
