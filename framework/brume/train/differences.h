#pragma once
// What differs between two resolved configurations.
#include <string>
#include <vector>

#include "brume/config/value.h"

namespace brume {

/// A key with another value.
struct Difference {
  std::string path, before, after;  ///< "model.network.channels", "32", "64"; "nothing" if one side lacks the key
  bool of_model() const;            ///< in `model:`, `classifier:` or `autoencoder:`
  /// Returns true if these are names of classes that `after` leaves to the data.
  bool left_to_data() const;
};

/// Returns the differences in the order of `before`. Plugins of different types are one difference, of `type`.
std::vector<Difference> differences(const Value& before, const Value& after);

}  // namespace brume
