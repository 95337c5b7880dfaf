#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "core/condition.h"
#include "core/dataset.h"

namespace at {
struct Generator;
}

namespace brume {

/// Turns what is known of an image into what the network is told, and owns the null condition.
class Conditioner {
 public:
  static constexpr std::string_view kind = "conditioner";
  virtual ~Conditioner() = default;
  /// Rows of the class embedding the network needs, the null class included; 0 = none.
  virtual int64_t class_rows() const = 0;
  /// Number of classes an image can have; 0 = none.
  virtual int64_t classes() const = 0;
  virtual bool has_null() const = 0;
  /// One row an annotation. With `dropout`, each is replaced by the null condition with the configured probability.
  /// Throws ConfigError where a label is out of range.
  virtual Condition encode(const std::vector<Annotation>& annotations, at::Generator* dropout) const = 0;
};

}  // namespace brume
