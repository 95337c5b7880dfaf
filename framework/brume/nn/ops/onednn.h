#pragma once
// oneDNN's engine, and what differs between its versions 2 (Debian 12) and 3 (Debian 13).
#include <ATen/ops/empty.h>
#include <sys/mman.h>

#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "brume/core/tensor.h"
#include "brume/nn/ops/memory_pool.h"

namespace brume::nn::onednn {

inline const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

/// Returns the stream of this thread.
inline dnnl::stream& stream() {
  thread_local dnnl::stream own(engine());
  return own;
}

/// Returns the type of a tensor in float32 or bfloat16.
inline dnnl::memory::data_type type(const Tensor& x) {
  return x.scalar_type() == at::kBFloat16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

inline dnnl::memory::desc line(const Tensor& x) { return {{x.numel()}, type(x), dnnl::memory::format_tag::x}; }

/// Returns the description of images [B, C, H, W], channels last.
inline dnnl::memory::desc nhwc(const Tensor& x) {
  return {{x.size(0), x.size(1), x.size(2), x.size(3)}, type(x), dnnl::memory::format_tag::nhwc};
}

/// Returns the description of a dense tensor as it lies.
inline dnnl::memory::desc plain(const Tensor& x) {
  return {{x.sizes().begin(), x.sizes().end()}, type(x), dnnl::memory::dims(x.strides().begin(), x.strides().end())};
}

inline dnnl::memory memory(const dnnl::memory::desc& d, const Tensor& of) { return {d, engine(), of.data_ptr()}; }

/// Throws std::bad_alloc if the system has no memory for the code of a few primitives. oneDNN 2.7 crashes without it.
inline void check_room_for_code() {
  constexpr size_t room = size_t(32) << 20;  // a primitive takes up to 1 MB for each of its kernels
  const auto reserve = [] { return mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); };
  void* block = reserve();
  if (block == MAP_FAILED) {
    MemoryPoolScope::release();
    block = reserve();
  }
  if (block == MAP_FAILED) throw std::bad_alloc();
  munmap(block, room);
}

/// What is worked out once for each shape that turns up.
template <class T>
class ByShape {
 public:
  template <class Make>
  std::shared_ptr<const T> find(const std::vector<int64_t>& shape, const Make& make) {
    const std::lock_guard lock(mutex_);
    if (const auto found = known_.find(shape); found != known_.end()) return found->second;
    check_room_for_code();
    auto made = std::make_shared<const T>(make());
    constexpr size_t shapes = 512;
    if (known_.size() >= shapes) known_.clear();
    return known_[shape] = std::move(made);
  }

 private:
  std::mutex mutex_;
  std::map<std::vector<int64_t>, std::shared_ptr<const T>> known_;
};

/// Returns memory that is freed with the tensor.
inline Tensor bytes(const dnnl::memory::desc& d) { return at::empty({int64_t(d.get_size())}, at::kByte); }

/// Returns this thread's memory to work in, which grows to the largest that was asked for.
inline const Tensor& work(const dnnl::memory::desc& wanted) {
  thread_local Tensor own;
  if (!own.defined() || own.nbytes() < wanted.get_size()) own = bytes(wanted);
  return own;
}

/// Runs a primitive of that description to its end.
template <class Description>
void execute(const Description& description, const dnnl::primitive& primitive, std::unordered_map<int, dnnl::memory> arguments) {
  const dnnl::memory::desc wanted = description.scratchpad_desc();
  if (wanted.get_size() > 0) arguments.emplace(DNNL_ARG_SCRATCHPAD, memory(wanted, work(wanted)));
  primitive.execute(stream(), arguments);
  stream().wait();
}

/// Copies the same numbers into another order, or type.
inline void reorder(const dnnl::reorder& how, dnnl::memory from, dnnl::memory to) {
  how.execute(stream(), from, to);
  stream().wait();
}

/// Returns what a convolution of x with weight [O, C, k, k] writes to: [B, O, H', W'], channels last.
inline Tensor convolved(const Tensor& x, const Tensor& weight, int64_t stride, int64_t padding) {
  const auto out = [&](int64_t axis) { return (x.size(axis) + 2 * padding - weight.size(axis)) / stride + 1; };
  return at::empty({x.size(0), weight.size(0), out(2), out(3)}, x.options(), at::MemoryFormat::ChannelsLast);
}

/// Returns the attributes of primitives that are given memory to work in.
inline dnnl::primitive_attr attributes() {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return result;
}

constexpr auto direct = dnnl::algorithm::convolution_direct;

/// Returns a convolution. `kind`: forward_inference or forward_training. An empty `bias`: none. `after`: what is done to the result before
/// it is rounded.
inline dnnl::convolution_forward::primitive_desc convolution(dnnl::prop_kind kind, const dnnl::memory::desc& x,
                                                             const dnnl::memory::desc& weight, const dnnl::memory::desc& bias,
                                                             const dnnl::memory::desc& out, int64_t stride, int64_t padding,
                                                             const dnnl::post_ops& after = {}) {
  const dnnl::memory::dims strides{stride, stride}, pads{padding, padding};
  dnnl::primitive_attr how = attributes();
  how.set_post_ops(after);
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), kind, direct, x, weight, bias, out, strides, pads, pads, how};
#else
  return {{kind, direct, x, weight, bias, out, strides, pads, pads}, how, engine()};
#endif
}

/// True if a 3x3 convolution of many channels is faster on AMX if it adds images from other memory (a line of channels does not do it):
/// oneDNN 2 has two kernels there, and takes the faster one for it (measured: 2560 to 1280 channels at 16x16 in 14.3 ms, else 21.6).
constexpr bool adding_separate_helps = DNNL_VERSION_MAJOR == 2;

/// Returns true if oneDNN computes in bfloat16 here, which needs AVX512. If it does not, bfloat16 input is computed in float32.
inline bool has_bf16() {
  static const bool has = [] {
    const auto any = dnnl::memory::format_tag::any;
    const auto of = [&](const dnnl::memory::dims& sizes) { return dnnl::memory::desc(sizes, dnnl::memory::data_type::bf16, any); };
    try {
      convolution(dnnl::prop_kind::forward_inference, of({1, 16, 8, 8}), of({16, 16, 1, 1}), {}, of({1, 16, 8, 8}), 1, 0);
    } catch (const dnnl::error&) {
      return false;
    }
    return true;
  }();
  return has;
}
inline bool widens(const Tensor& x) { return x.scalar_type() == at::kBFloat16 && !has_bf16(); }

/// Returns the product out = scale a b for each of G matrices; any order in memory.
inline dnnl::matmul::primitive_desc batched_matmul(const dnnl::memory::desc& a, const dnnl::memory::desc& b, const dnnl::memory::desc& out,
                                                   float scale) {
  dnnl::post_ops after;
  dnnl::primitive_attr scaled = attributes();
#if DNNL_VERSION_MAJOR >= 3
  if (scale != 1) after.append_eltwise(dnnl::algorithm::eltwise_linear, scale, 0);
  scaled.set_post_ops(after);
  return {engine(), a, b, out, scaled};
#else
  if (scale != 1) after.append_eltwise(1, dnnl::algorithm::eltwise_linear, scale, 0);
  scaled.set_post_ops(after);
  return {{a, b, out}, scaled, engine()};
#endif
}

/// A convolution that learns, and its gradients: by x, and by weight and bias. Channels last; `weight` in the order that each likes best.
struct TrainingConvolution {
  dnnl::convolution_forward::primitive_desc forward;
  dnnl::convolution_backward_data::primitive_desc by_x;
  dnnl::convolution_backward_weights::primitive_desc by_weight;
};

/// Returns a convolution that learns. `gradient`, `bias`: of the weight and of the bias, in float32. An empty `bias`: none.
inline TrainingConvolution learning_convolution(const dnnl::memory::desc& x, const dnnl::memory::desc& weight,
                                                const dnnl::memory::desc& gradient, const dnnl::memory::desc& bias,
                                                const dnnl::memory::desc& out, int64_t stride, int64_t padding) {
  const dnnl::memory::dims strides{stride, stride}, pads{padding, padding};
  const auto forward = convolution(dnnl::prop_kind::forward_training, x, weight, bias, out, stride, padding);
#if DNNL_VERSION_MAJOR >= 3
  return {forward,
          {engine(), direct, x, weight, out, strides, pads, pads, forward, attributes()},
          {engine(), direct, x, gradient, bias, out, strides, pads, pads, forward, attributes()}};
#else
  return {forward,
          {{direct, x, weight, out, strides, pads, pads}, attributes(), engine(), forward},
          {{direct, x, gradient, bias, out, strides, pads, pads}, attributes(), engine(), forward}};
#endif
}

}  // namespace brume::nn::onednn
