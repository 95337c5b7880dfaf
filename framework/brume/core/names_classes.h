#pragma once
#include <string>
#include <vector>

namespace brume {

/// What a model, a classifier or an extractor of features also is if it knows its classes by name.
class NamesClasses {
 public:
  virtual ~NamesClasses() = default;
  /// Returns the names of the classes by number; empty if they have none.
  virtual std::vector<std::string> class_names() const = 0;
};

/// Returns the class names of `object`; empty if it knows none.
template <class T>
std::vector<std::string> class_names_of(const T& object) {
  const auto* named = dynamic_cast<const NamesClasses*>(&object);
  return named ? named->class_names() : std::vector<std::string>();
}

}  // namespace brume
