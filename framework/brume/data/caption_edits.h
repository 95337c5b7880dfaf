#pragma once
// What is changed in a caption each time that it is read, for captions that are lists of tags.
#include <cstdint>
#include <string>

#include "brume/config/fields.h"

namespace brume {

/// The tags of a caption stand between separators.
struct CaptionEdits {
  bool shuffle_tags = false;
  int64_t keep_tags = 0;  ///< the first so many stay where they are
  double drop_tags = 0;   ///< probability with which each other tag is left out
  double drop = 0;        ///< probability with which the whole caption is
  std::string separator = ",", prefix, suffix;

  void declare(Fields& f);
  /// Returns the caption for a draw (Dataset::read): the prefix, the tags and the suffix, or "" if it is dropped.
  std::string apply(const std::string& caption, uint64_t draw) const;
};

}  // namespace brume
