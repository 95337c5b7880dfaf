#pragma once
// The files of controls (core/control.h) as other programs write them.
#include <string>
#include <vector>

#include "brume/core/control_branch.h"
#include "brume/weights/tensors.h"

namespace brume {

/// The tensors of a file, or of the directory of a diffusers component.
struct ControlTensors {
  std::string source;  ///< for messages
  NamedTensors tensors;
};
/// Returns them without the prefixes that programs put before all names ("control_model.", "adapter.", "module."). Throws ConfigError if
/// there is no such file.
ControlTensors control_tensors(const std::string& path);

/// What a control's file is of.
struct ControlFamily {
  std::string type;           ///< the plugin: "controlnet", "t2i_adapter" or "ip_adapter"
  std::string name;           ///< "ControlNet", "T2I-Adapter" or "IP-Adapter"
  bool image_prompt = false;  ///< it sees the image by the plugin's option `encoder`
};
/// Returns the family of a file by its names; null if it is of none.
const ControlFamily* control_family(const NamedTensors& tensors);

/// Throws ConfigError as refuse_control() if the file is not of the family of this type.
void expect_control(const ControlTensors& file, const std::string& type);

/// Throws the ConfigError of a file that is no `wanted` (one of these names): what it is, or its names, grouped, with the likely reason.
[[noreturn]] void refuse_control(const ControlTensors& file, const std::string& wanted);

/// Throws ConfigError naming both generations if a control is of another one than the model. `what`: "ControlNet".
void check_generation(const ControlTensors& file, const std::string& what, int64_t context_width, int64_t model_context_width);

/// A ControlNet under CompVis' names.
struct ControlNetFile {
  std::string source;
  NamedTensors tensors;
  ControlBranchOptions options;
};
/// Reads a ControlNet: diffusers' directory or file, CompVis' (`control_model.` and bare names), or a control-LoRA, whose changes of low
/// rank are added to the weights of the model's network. `network`: the weights of the model's U-Net. Throws ConfigError.
ControlNetFile read_controlnet(const std::string& path, const std::vector<Weight>& network, int64_t context_width);

}  // namespace brume
