#pragma once
// What is kept of a run of `brume sample` besides its images: every step, as pictures or as tensors.
#include <map>
#include <string>
#include <vector>

#include "brume/diffusion/pipeline.h"
#include "brume/image/image.h"

namespace brume::tools {

struct RecordArguments {
  std::string frames, strip, trajectory;  ///< files; "" = not written
  int64_t columns = 0, tile = 0;          ///< of the pictures of many images; of decoding, in pixels (decoding.h)
  bool any() const { return !frames.empty() || !strip.empty() || !trajectory.empty(); }
};

/// Checks the files that these are written to, and their endings; throws ConfigError before a run that could not be kept.
void check_record(const RecordArguments& asked);

/// Returns as many columns as a grid of `count` images looks best with; `asked` if it is not 0.
int64_t columns_of(int64_t asked, size_t count);

/// x in the network's frame and x0, step by step, batch by batch.
class Record {
 public:
  Record(RecordArguments asked, const Pipeline& model) : asked_(std::move(asked)), model_(model) {}
  /// Adds a step of the batch that begins with image `first`.
  void add(int64_t first, const Step& step);
  /// Adds the images that the next batch has ended at.
  void end(const Tensor& x);
  /// Writes what was asked for; prints the files. images: [count, C, H, W].
  void write(const Tensor& images) const;

 private:
  size_t steps() const { return x_.size(); }
  bool pixels(const Tensor& images) const { return x_.front().front().sizes().slice(1) == images.sizes().slice(1); }
  std::vector<Image> frame(size_t number, const Tensor& images, int64_t most) const;
  void write_pictures(const Tensor& images) const;
  void write_trajectory(const Tensor& images) const;

  RecordArguments asked_;
  const Pipeline& model_;
  std::vector<std::vector<Tensor>> x_, x0_;  ///< [step][batch]
  std::vector<double> sigma_, t_;
  std::vector<Tensor> end_;  ///< [batch]: x at the end
};

}  // namespace brume::tools
