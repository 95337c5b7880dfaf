#pragma once
// Controls that may steer the conditional estimate alone: ControlNets whose residuals are averaged over the image (shuffle).

namespace brume {

/// A further base of an OpenControl.
class ConditionalControl {
 public:
  virtual ~ConditionalControl() = default;
  /// Returns true if unconditional estimates are made without the control.
  virtual bool conditional_only() const = 0;
};

}  // namespace brume
