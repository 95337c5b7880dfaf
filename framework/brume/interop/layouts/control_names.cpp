#include "brume/interop/layouts/control_names.h"

#include <algorithm>
#include <utility>

namespace brume {

std::string_view control_kind(const NamedTensors& tensors) {
  static constexpr std::pair<std::string_view, std::string_view> kinds[] = {{"lora_controlnet", "control-LoRA"},
                                                                            {"ip_adapter.", "IP-Adapter"},
                                                                            {"controlnet_cond_embedding.", "ControlNet"},
                                                                            {"input_hint_block.", "ControlNet"},
                                                                            {"adapter.body.", "T2I-Adapter"},
                                                                            {"body.0.block1.", "T2I-Adapter"},
                                                                            {"body.0.in_conv.", "T2I-Adapter"},
                                                                            {"body.0.resnets.0.block1.", "T2I-Adapter"}};
  for (const auto& [part, kind] : kinds)
    if (std::any_of(tensors.begin(), tensors.end(), [part = part](const NamedTensor& t) { return t.name.find(part) != std::string::npos; }))
      return kind;
  return "";
}

}  // namespace brume
