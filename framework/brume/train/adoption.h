#pragma once
// Weights of a model in one of other shapes (`train.adopt`): classes, input channels, the last layer.
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/core/network.h"
#include "brume/train/options.h"
#include "brume/weights/tensors.h"

namespace brume {

/// The classes of a model that is taken over, or of the one that takes it over.
struct ClassRows {
  int64_t count = 0;               ///< without the null class; 0 = not class-conditional
  std::vector<std::string> names;  ///< empty, or one per class
};

/// Returns the classes of a configuration with a section `model` or `classifier`.
ClassRows class_rows(const Value& root);

/// Returns a tensor for each of `weights`, in their shapes and under their names: the source's if the shapes are the same, else what the
/// rules of `options` make of it. Throws ConfigError with every weight that differs and the rule that would do, with every tensor of the
/// source that is left over, and with every class and pattern that is unknown. `file` names the source.
/// `network`: the one whose weights "network.…" are; null = none.
NamedTensors adopt(const std::string& file, const NamedTensors& source, const std::vector<Weight>& weights, const AdoptionOptions& options,
                   const ClassRows& before, const ClassRows& after, const Network* network);

/// Returns the rule of `train.adopt` that lets the key at `path` ("model.parameterization.type") of a model differ from its source's, as
/// a user writes it ("head: new"); "" if none does.
std::string rule_for(const std::string& path);
/// Returns true if `options` have that rule, or name weights that are left out or added.
bool allows(const AdoptionOptions& options, const std::string& path);

}  // namespace brume
