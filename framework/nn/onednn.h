#pragma once
// oneDNN's engine, and what differs between its versions 2 (Debian 12) and 3 (Debian 13).
#include <oneapi/dnnl/dnnl.hpp>

#include "core/tensor.h"

namespace brume::nn::onednn {

inline const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

/// Of this thread.
inline dnnl::stream& stream() {
  thread_local dnnl::stream own(engine());
  return own;
}

/// Of a tensor in float32 or bfloat16.
inline dnnl::memory::data_type type(const Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

inline dnnl::memory::desc line(const Tensor& x) { return {{x.numel()}, type(x), dnnl::memory::format_tag::x}; }

/// For inference, with memory to work in given by the caller. An empty `bias`: none.
inline dnnl::convolution_forward::primitive_desc convolution(const dnnl::memory::desc& x, const dnnl::memory::desc& weight,
                                                             const dnnl::memory::desc& bias, const dnnl::memory::desc& out, int64_t stride,
                                                             int64_t padding) {
  const dnnl::memory::dims strides{stride, stride}, pads{padding, padding};
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  constexpr auto inference = dnnl::prop_kind::forward_inference;
  constexpr auto direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), inference, direct, x, weight, bias, out, strides, pads, pads, attributes};
#else
  return {{inference, direct, x, weight, bias, out, strides, pads, pads}, attributes, engine()};
#endif
}

}  // namespace brume::nn::onednn
