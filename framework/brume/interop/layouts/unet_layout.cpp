#include "brume/interop/layouts/unet_layout.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>

namespace brume {

NamedTensors in_attention_order(const NamedTensors& tensors, const UnetLayout& layout) {
  NamedTensors result = tensors;
  if (!layout.heads_first) return result;
  for (NamedTensor& t : result) {
    if (t.name.find(".qkv.") == std::string::npos) continue;
    const int64_t channels = t.tensor.size(0) / 3, heads = layout.heads_of(channels);
    const at::Tensor split = t.tensor.reshape({3, heads, channels / heads, -1});
    t.tensor = split.transpose(0, 1).reshape(t.tensor.sizes());
  }
  return result;
}

}  // namespace brume
