#include "brume/core/joint_objective.h"

#include <stdexcept>

namespace brume {

Tensor JointObjective::loss(const TrainableModel&, const Tensor&, const Condition&, Training&, at::Generator&) const {
  throw std::logic_error("an objective with networks of its own has no loss before it is opened");
}

}  // namespace brume
