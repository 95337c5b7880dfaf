#include "brume/train/resuming.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/train/differences.h"

namespace brume {
namespace {

/// Whether the state of the optimizers belongs to other weights after the change.
bool of_the_optimizers(const Difference& d) { return d.path == "train.discriminator" || d.path.starts_with("train.freeze"); }

/// Whether the learning rate of the optimizer depends on the number of steps.
bool decays(const Value& resolved) {
  const Value& decay = nearest(resolved, "train.optimizer.decay");
  return decay.is_scalar() && decay.scalar != "constant";
}

}  // namespace

std::string changes_since(const Value& stored, const Value& resolved, const Value& given) {
  std::vector<Difference> changes = differences(stored, resolved);
  std::erase_if(changes, [](const Difference& d) {  // a resumed training opens no source
    return d.path.starts_with("plugins") || d.path == "train.from" || d.left_to_data();
  });
  std::vector<Problem> refused;
  std::string line;
  for (const Difference& d : changes) {
    const auto refuse = [&, &d = d](const char* what) {
      refused.push_back({nearest(given, d.path).place, "",
                         fmt::format("{} cannot be changed: {} is {} and would be {}", what, d.path, d.before, d.after)});
    };
    if (d.of_model()) refuse("a training's model");
    if (of_the_optimizers(d)) refuse("the weights of a training's optimizers");
    line += fmt::format("{}{} {} -> {}", line.empty() ? "" : ", ", d.path, d.before, d.after);
    if (d.path == "train.steps" && decays(resolved)) line += " (the learning rate decays towards the new number)";
  }
  if (!refused.empty()) throw ConfigError(std::move(refused));
  return line;
}

}  // namespace brume
