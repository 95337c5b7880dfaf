#pragma once
// The lists, tuples and dicts a pickle builds. A hostile pickle can nest them a million deep, in cycles, or so that a small graph
// unfolds into an enormous tree; this class frees them safely whatever their shape, and accepts only well-shaped results.
#include <cstddef>
#include <memory>
#include <string>
#include <unordered_set>
#include <variant>
#include <vector>

#include "brume/weights/pickle_value.h"

namespace brume {

class PickleGraph final {
 public:
  PickleGraph() = default;
  ~PickleGraph();  ///< empties the containers that no accepted value holds, one by one: nothing recurses
  PickleGraph(const PickleGraph&) = delete;
  PickleGraph& operator=(const PickleGraph&) = delete;

  /// Owns the container `value` holds, if it holds one.
  void own(const PickleValue& value);
  size_t size() const { return containers_.size(); }
  /// Checks that everything below `root` is free of cycles, of bounded depth, and not much larger as a tree than in the
  /// file, and lets go of it. Returns what is wrong, or "".
  std::string accept(const PickleValue& root);

 private:
  using Container = std::variant<std::shared_ptr<Sequence>, std::shared_ptr<PickleDict>>;
  std::vector<Container> containers_;
  std::unordered_set<const void*> accepted_;
};

}  // namespace brume
