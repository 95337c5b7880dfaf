#pragma once
// What set metrics need to know of a set of images, and files of it.
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "brume/core/features.h"
#include "brume/core/fnv.h"
#include "brume/core/set_metric.h"
#include "brume/diffusion/pipeline.h"
#include "brume/distributed/world.h"
#include "brume/numerics/moment_sum.h"

namespace brume {

/// Returns what any of the metrics needs.
SetMetric::Needs needs_of(const std::vector<std::shared_ptr<const SetMetric>>& metrics);

/// Throws ConfigError naming a metric's need that the extractor does not have: logits or spatial features.
void check_needs(const SetMetric::Needs& needs, const Features& extractor);

/// Collects the features of a set, image by image. Keeps only what is needed: sums for `statistics`, so memory does not grow with the
/// number of images. The summary depends on the images and their order, neither on the batches nor on the number of processes: each process
/// adds its part (World::part), rank 0 sums up the rows in the order of the images, and the others keep theirs until gather().
class FeatureSummarizer {
 public:
  /// Begins without images. `name`: of the set, for errors. The extractor and the world must outlive it.
  FeatureSummarizer(const Features& extractor, const SetMetric::Needs& needs, std::string name, World& world = *world_of_one());
  /// Returns the numbers of the images that this process adds, of a set of `count`; errors number its images from there on.
  NumberRange begin(int64_t count);
  /// Adds the features of images, [B, C, H, W] in [-1, 1]. Grey images are repeated in three channels if the extractor takes three.
  /// `captions`: one per image if captions are needed, else ignored. Throws ConfigError naming the image if a value, or a feature of it, is
  /// not finite, or if an image that needs a caption has none. `sizes`: heights and widths of the images before they were resized to fit
  /// the extractor; empty = their own.
  void add(const Tensor& images, const std::vector<std::string>& captions = {}, const std::vector<std::array<int64_t, 2>>& sizes = {});
  int64_t images() const { return images_; }  ///< that this process has; after gather(), rank 0 has all
  /// Brings the rows of all processes to rank 0. Collective: all call it once, after their last image.
  void gather();
  FeatureSummary summary() const;
  /// Returns the images' sizes and whether they are grey, if that is worth saying: "sizes from 16x16 to 32x48", "grey, repeated in 3
  /// channels".
  std::vector<std::string> notes() const;
  /// Returns the FNV-1a hash of the FNV-1a hashes of the images' pixels at 8 bits, in the order of the images: 16 hexadecimal digits.
  std::string hash() const;

 private:
  /// What is known of some images; undefined tensors are not needed.
  struct Rows {
    Tensor facts;  ///< [B, 4] int64: hash, height, width, whether it is grey
    Tensor features, spatial, logits, captions;
    std::vector<std::pair<Tensor*, int64_t>> parts(const FeatureSummarizer& of);
  };
  Tensor facts_of(const Tensor& images, const std::vector<std::array<int64_t, 2>>& sizes) const;
  void take(const Rows& rows);
  void expect_finite(const Tensor& rows, const std::string& what) const;
  Tensor embedded(const std::vector<std::string>& captions, int64_t count) const;

  const Features& extractor_;
  SetMetric::Needs needs_;
  std::string name_;
  World& world_;
  int64_t first_ = 0, images_ = 0;
  std::vector<Rows> kept_;  // of a process other than rank 0
  MomentSum statistics_, spatial_;
  std::vector<Tensor> rows_, logits_, captions_;
  int64_t heights_[2] = {0, 0}, widths_[2] = {0, 0};  // the smallest and the largest
  bool grey_ = true;
  Fnv1a pixels_;
};

/// Adds this process's part of `count` samples, the classes and the captions in turn, `batch` at a time, rounded to 8 bits, and gathers
/// them. The observer's first argument is the number of an image in that part; guidances find their models in `models`.
void add_samples(FeatureSummarizer& summarizer, const Pipeline& model, const SampleOptions& options, int64_t count, int64_t batch,
                 uint64_t seed, const std::function<bool(int64_t first, const Step&)>& observer, const ModelSource& models,
                 const std::vector<std::string>& captions = {});

/// Writes `mu` and `sigma`, and `mu_s` and `sigma_s` if there are spatial features: an .npz that pytorch-fid reads, and ADM's evaluator; or
/// to a .pkl, the pickle that EDM2 reads, without the spatial ones.
/// One more array, `brume`, has as JSON the extractor, the hash of its weights, its preprocessing and precision, and the images' number and
/// `hash`.
void write_statistics(const std::string& path, const FeatureSummary& summary, const Features& extractor, const std::string& hash);

/// Returns true if the file is one of statistics: a .pkl, or an .npz with `mu`, or with `sigma` and no images.
bool holds_statistics(const std::string& path);

/// Returns the statistics of an .npz of brume, pytorch-fid, ADM or EDM, or of a pickle of EDM2 ({"num_images", "fid": {"mu", "sigma"},
/// "fd_dinov2": …}; nothing in it is executed). Throws ConfigError if arrays that are needed are missing, of another width than the
/// extractor's, not finite or not symmetric; or if the file names other weights, another preprocessing or another precision.
FeatureSummary read_statistics(const std::string& path, const Features& extractor, const SetMetric::Needs& needs);

}  // namespace brume
