// nn::attention: fused kernels if nothing is recorded, whole products if they are small, and else blocks of queries, so that no
// matrix of all scores is ever kept (Rabe & Staats 2021). The gradient of the blocks computes their weights a second time:
//
//   P = softmax(scale Q K^T), dV = P^T dO, dS = P (dP - sum_j dP_j P_j), dP = dO V^T, dQ = scale dS K, dK = scale dS^T Q
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "brume/core/libtorch.h"
#include "brume/nn/ops/batched_matmul.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/kernels/attention_kernel.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/ops.h"
#include "brume/nn/ops/softmax.h"

namespace brume::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double never = -1e30;  // the score of a key that is not seen

double scale_of(const Tensor& q) { return 1 / std::sqrt(double(q.size(3))); }
at::ScalarType wide_type(const Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

/// Returns [B, N, heads, d] in memory, as the projection that follows wants it; seen as [B, heads, N, d].
Tensor empty_heads(const Tensor& like) {
  return at::empty({like.size(0), like.size(2), like.size(1), like.size(3)}, like.options()).transpose(1, 2);
}

// ---- whole products: differentiable, any device

/// Returns [1, count, M], true if a key comes after a query of [first, first + count).
Tensor not_yet(int64_t first, int64_t count, int64_t keys, const Tensor& like) {
  const auto options = like.options().dtype(at::kLong);
  return (at::arange(keys, options).unsqueeze(0) > at::arange(first, first + count, options).unsqueeze(1)).unsqueeze(0);
}

/// Returns true if a key is not seen: [B or 1, 1, 1 or N, M]; undefined if all are seen.
Tensor unseen(const AttentionMask& mask, const Tensor& q, const Tensor& k) {
  Tensor result;
  if (mask.keys.defined()) result = (mask.keys == 0).unsqueeze(1).unsqueeze(1);
  if (!mask.causal) return result;
  const Tensor later = not_yet(0, q.size(2), k.size(2), k);
  return result.defined() ? result.logical_or(later) : later.unsqueeze(0);
}

Tensor by_matrix(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  const auto flat = [](const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2), t.size(3)}); };
  const int64_t b = q.size(0), heads = q.size(1), n = q.size(2), m = k.size(2);
  Tensor scores = at::bmm(flat(q * scale_of(q)), flat(k).transpose(1, 2));
  if (const Tensor hidden = unseen(mask, q, k); hidden.defined())
    scores = scores.to(wide_type(q)).view({b, heads, n, m}).masked_fill(hidden, never).view({b * heads, n, m});
  const Tensor weights = at::softmax(scores, -1, wide_type(q)).to(q.scalar_type());
  return at::bmm(weights, flat(v)).view({b, heads, n, v.size(3)});
}

/// Computes LibTorch's own, if it has one and nothing is recorded: on other devices, and as the reference. Undefined elsewhere.
Tensor by_library(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  if (q.device().is_cpu() && isa() != Isa::reference) return {};
  Tensor bias;
  if (const Tensor hidden = unseen(mask, q, k); hidden.defined()) bias = at::zeros(hidden.sizes(), q.options()).masked_fill_(hidden, never);
  return library_attention(q, k, v, bias);
}

// ---- fused kernels: CPU, nothing recorded

bool has_kernel(const Tensor& q) {
  return isa() != Isa::reference && q.device().is_cpu() && (q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16);
}

void attend(const kernels::AttentionHead& head, bool bf16) {
#if defined(__x86_64__)
  if (bf16 && isa() == Isa::amx) return kernels::attention_amx(head);
  if (bf16 && isa() == Isa::avx512_bf16) return kernels::attention_avx512bf16(head);
  if (isa() >= Isa::avx512) return kernels::attention_avx512(head, bf16);
  if (isa() == Isa::avx2) return kernels::attention_avx2(head, bf16);
#endif
  kernels::attention_generic(head, bf16);
}

/// Computes head by head without a matrix of all scores, each by one thread: no path depends on the batch.
Tensor fused(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  const auto dense = [](const Tensor& t) { return t.stride(3) == 1 ? t : t.contiguous(); };
  const Tensor q_ = dense(q), k_ = dense(k), v_ = dense(v), out = empty_heads(q);
  const Tensor seen = mask.keys.defined() ? mask.keys.to(at::kFloat).contiguous() : Tensor();
  const int64_t batch = q.size(0), heads = q.size(1), queries = q.size(2), keys = k.size(2), width = q.size(3);
  const bool bf16 = q.scalar_type() == at::kBFloat16;
  constexpr int64_t rows = kernels::attention_queries;
  const int64_t blocks = (queries + rows - 1) / rows;  // of queries, for few heads and big images
  const auto place = [&](const Tensor& t, int64_t b, int64_t h, int64_t row) {
    const int64_t at = t.storage_offset() + b * t.stride(0) + h * t.stride(1) + row * t.stride(2);
    return static_cast<char*>(t.storage().data_ptr().get()) + at * t.element_size();
  };
  at::parallel_for(0, batch * heads * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(size_t(kernels::attention_scratch(keys, width)));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t block = task % blocks, h = task / blocks % heads, b = task / blocks / heads, first = block * rows;
      attend({{place(q_, b, h, first), q_.stride(2)},
              {place(k_, b, h, 0), k_.stride(2)},
              {place(v_, b, h, 0), v_.stride(2)},
              place(out, b, h, first),
              out.stride(2),
              std::min(rows, queries - first),
              keys,
              width,
              float(scale_of(q)),
              seen.defined() ? static_cast<const float*>(seen.data_ptr()) + b * keys : nullptr,
              mask.causal ? first : -1,
              scratch.data()},
             bf16);
    }
  });
  return out;
}

// ---- blocks of queries

/// Returns [B, heads, N, d] as [B heads, N, d], dense.
Tensor flat(const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2), t.size(3)}).contiguous(); }

/// Some queries of some heads, with the keys that are not seen.
struct Block {
  int64_t head, heads, first, count;
  Tensor hidden;  ///< [1 or heads, 1 or count, M] or undefined
  Tensor all(const Tensor& t) const { return t.narrow(0, head, heads); }
  Tensor rows(const Tensor& t) const { return all(t).narrow(1, first, count); }
  /// Returns softmax(scale q k^T), [heads, count, M], in the type of q.
  Tensor weights(const Tensor& q, const Tensor& k, double scale) const {
    const Tensor scores = batched_matmul(rows(q), all(k).transpose(1, 2), wide_type(q), scale);
    if (hidden.defined()) scores.masked_fill_(hidden, never);
    return softmax(scores, q.scalar_type());
  }
};

/// Calls step(block) for each block of queries of each group of at most `most` heads, of which there are `heads` an image. q, k: flat.
template <class Step>
void for_blocks(const Tensor& q, const Tensor& k, int64_t heads, int64_t most, const AttentionMask& mask, const Step& step) {
  constexpr int64_t scores = int64_t(1) << 20;  // 4 MB of float32 at a time
  const int64_t queries = q.size(1), keys = k.size(1);
  const int64_t count = std::clamp<int64_t>(scores / std::max<int64_t>(1, keys), 1, queries);
  const int64_t group = std::clamp<int64_t>(scores / std::max<int64_t>(1, count * keys), 1, std::min(most, q.size(0)));
  const Tensor padding = mask.keys.defined() ? (mask.keys == 0).repeat_interleave(heads, 0).unsqueeze(1) : Tensor();
  for (int64_t head = 0; head < q.size(0); head += group)
    for (int64_t first = 0; first < queries; first += count) {
      Block block{head, std::min(group, q.size(0) - head), first, std::min(count, queries - first), {}};
      if (padding.defined()) block.hidden = block.all(padding);
      if (mask.causal) {
        const Tensor later = not_yet(block.first, block.count, keys, k);
        block.hidden = block.hidden.defined() ? block.hidden.logical_or(later) : later;
      }
      step(block);
    }
}

Tensor by_blocks(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  const Tensor q_ = flat(q), k_ = flat(k), v_ = flat(v), out = empty_heads(q);
  const int64_t heads = q.size(1), most = q.device().is_cpu() ? 1 : q_.size(0);  // on the CPU, no path may depend on the batch
  for_blocks(q_, k_, heads, most, mask, [&](const Block& b) {
    const Tensor rows = batched_matmul(b.weights(q_, k_, scale_of(q)), b.all(v_), q.scalar_type());
    for (int64_t i = 0; i < b.heads; ++i)
      out.select(0, (b.head + i) / heads).select(0, (b.head + i) % heads).narrow(0, b.first, b.count).copy_(rows.select(0, i));
  });
  return out;
}

struct BlockAttention final : torch::autograd::Function<BlockAttention> {
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& keys, bool causal) {
    context->save_for_backward({q, k, v, keys});
    context->saved_data["causal"] = causal;
    const AttentionMask mask{keys.numel() ? keys : Tensor(), causal};
    if (has_kernel(q)) return fused(q, k, v, mask);
    const Tensor out = by_library(q, k, v, mask);
    return out.defined() ? out : by_blocks(q, k, v, mask);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const AttentionMask mask{saved[3].numel() ? saved[3] : Tensor(), context->saved_data["causal"].toBool()};
    variable_list result(5);
    if (at::GradMode::is_enabled())
      again_differentiable(saved, mask, grads[0], result);
    else
      gradients(q, k, v, mask, grads[0], result);
    return result;
  }

 private:
  static void gradients(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask, const Tensor& d_out,
                        variable_list& result) {
    const OpTimer timer("attention gradient", 5 * 2.0 * double(q.numel()) * double(k.size(2)));
    const double scale = scale_of(q);
    const at::ScalarType type = q.scalar_type(), wide = wide_type(q);
    const Tensor q_ = flat(q), k_ = flat(k), v_ = flat(v), d = flat(d_out), dq = at::empty_like(q_);
    const Tensor dk = at::zeros(k_.sizes(), k_.options().dtype(wide)), dv = at::zeros_like(dk);
    for_blocks(q_, k_, q.size(1), q_.size(0), mask, [&](const Block& b) {
      const Tensor p = b.weights(q_, k_, scale);
      b.all(dv).add_(batched_matmul(p.transpose(1, 2), b.rows(d), wide));
      const Tensor ds = softmax_gradient(p, batched_matmul(b.rows(d), b.all(v_).transpose(1, 2), wide), scale);
      if (b.hidden.defined()) ds.masked_fill_(b.hidden, 0);  // of queries that see no key
      b.rows(dq).copy_(batched_matmul(ds, b.all(k_), type));
      b.all(dk).add_(batched_matmul(ds.transpose(1, 2), b.rows(q_), wide));
    });
    result[0] = dq.view(q.sizes()), result[1] = dk.to(type).view(k.sizes()), result[2] = dv.to(type).view(v.sizes());
  }

  /// A gradient of the gradient is wanted: differentiates the definition instead.
  static void again_differentiable(const variable_list& saved, const AttentionMask& mask, const Tensor& d_out, variable_list& result) {
    variable_list input(3), inputs;
    std::vector<size_t> places;
    for (size_t i = 0; i < 3; ++i) {  // views, so that none is reached through another
      input[i] = saved[i].view_as(saved[i]);
      if (!input[i].requires_grad()) continue;
      inputs.push_back(input[i]);
      places.push_back(i);
    }
    const variable_list d = torch::autograd::grad({by_matrix(input[0], input[1], input[2], mask)}, inputs, {d_out}, true, true, true);
    for (size_t i = 0; i < places.size(); ++i) result[places[i]] = d[i];
  }
};

/// Scores of a call from which blocks are taken if there are no kernels: 16 MB of float32.
constexpr int64_t many_scores = int64_t(1) << 22;

/// Returns true if oneDNN's products are faster than the kernel: if that one multiplies bfloat16 as float32 though the processor
/// need not, and in float32 from AVX512 on (measured: by 10 to 20 %).
bool better_by_products(const Tensor& q, const Tensor& k, const AttentionMask& mask) {
  constexpr int64_t many = int64_t(1) << 16;  // scores of a head
  if (mask.causal || mask.keys.defined() || q.size(2) * k.size(2) < many || !has_batched_matmul(q.scalar_type())) return false;
  return q.scalar_type() == at::kBFloat16 ? isa() < Isa::avx512_bf16 : isa() >= Isa::avx512;
}

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionMask& mask) {
  const OpTimer timer("attention", 2.0 * double(q.numel()) * double(k.size(2)) * 2);
  if (!at::GradMode::is_enabled() && has_kernel(q)) return better_by_products(q, k, mask) ? by_blocks(q, k, v, mask) : fused(q, k, v, mask);
  if (!at::GradMode::is_enabled())
    if (const Tensor out = by_library(q, k, v, mask); out.defined()) return out;
  const int64_t scores = q.size(0) * q.size(1) * q.size(2) * k.size(2);
  const bool baseline = isa() == Isa::reference && q.scalar_type() == at::kBFloat16 && !at::GradMode::is_enabled();
  if (baseline || (!has_kernel(q) && scores < many_scores)) return by_matrix(q, k, v, mask);
  return BlockAttention::apply(q, k, v, mask.keys.defined() ? mask.keys : at::empty({0}, q.options()), mask.causal);
}

}  // namespace brume::nn
