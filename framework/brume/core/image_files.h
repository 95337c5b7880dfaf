#pragma once
// What a data set of image files found when it was opened, and what it left out.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

class Inventory {
 public:
  struct LeftOut {
    std::string reason;   ///< "hidden"
    int64_t count = 0;    ///< files, samples or images
    std::string example;  ///< the name of the first
  };
  /// Counts one that is left out.
  void leave_out(std::string_view reason, const std::string& name);
  const std::vector<LeftOut>& left_out() const { return left_out_; }
  /// Returns "3 hidden (.git), 1 without a caption (a.png)"; empty if nothing is left out.
  std::string text() const;

  int64_t captions = 0;

 private:
  std::vector<LeftOut> left_out_;
};

/// Implemented by data sets that read image files, besides Dataset.
class ImageFiles {
 public:
  virtual ~ImageFiles() = default;
  virtual const Inventory& inventory() const = 0;
  /// Throws ConfigError if image `index` cannot be read, as far as its file shows that without decoding. Safe from several threads.
  virtual void check_image(int64_t index) const = 0;
  /// Returns whether an image that cannot be read is left out (`on_error: skip`), instead of ending what needs it.
  virtual bool skips_errors() const = 0;
};

}  // namespace brume
