#include "brume/nn/ops/batched_matmul.h"

#include <ATen/ops/bmm.h>

#include "brume/nn/ops/onednn.h"
#include "brume/nn/ops/packed_weight.h"

namespace brume::nn {
namespace {

struct Plan {
  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
};

}  // namespace

bool has_batched_matmul(at::ScalarType type) { return packing(type) && (type != at::kBFloat16 || onednn::has_bf16()); }

Tensor batched_matmul(const Tensor& a, const Tensor& b, at::ScalarType type, double scale) {
  if (!a.device().is_cpu() || !packing(a.scalar_type())) {
    const at::ScalarType wide = a.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const Tensor out = at::bmm(a.to(wide), b.to(wide));
    return (scale == 1 ? out : out.mul_(scale)).to(type);
  }
  if (onednn::widens(a)) return batched_matmul(a.to(at::kFloat), b.to(at::kFloat), type, scale);
  static onednn::ByShape<Plan> plans;
  const Tensor out = at::empty({a.size(0), a.size(1), b.size(2)}, a.options().dtype(type == a.scalar_type() ? type : at::kFloat));
  if (out.numel() == 0) return out.to(type);
  std::vector<int64_t> shape{int64_t(a.scalar_type()), int64_t(out.scalar_type()), __builtin_bit_cast(int64_t, scale)};
  for (const at::IntArrayRef part : {a.sizes(), a.strides(), b.sizes(), b.strides()}) shape.insert(shape.end(), part.begin(), part.end());
  const auto plan = plans.find(shape, [&] {
    const auto description = onednn::batched_matmul(onednn::plain(a), onednn::plain(b), onednn::plain(out), float(scale));
    return Plan{description, dnnl::matmul(description)};
  });
  const auto& d = plan->description;
  onednn::execute(d, plan->primitive,
                  {{DNNL_ARG_SRC, onednn::memory(d.src_desc(), a)},
                   {DNNL_ARG_WEIGHTS, onednn::memory(d.weights_desc(), b)},
                   {DNNL_ARG_DST, onednn::memory(d.dst_desc(), out)}});
  return out.to(type);
}

}  // namespace brume::nn
