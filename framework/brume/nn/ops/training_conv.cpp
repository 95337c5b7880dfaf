// LibTorch turns weights into oneDNN's order at each of the three passes, from a copy in bfloat16, and gives their gradient in
// bfloat16 as well. Here each pass has the order that it likes, made straight from the weight.
#include "brume/nn/ops/training_conv.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "brume/nn/ops/matmul.h"
#include "brume/nn/ops/onednn.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/tile_conv.h"
#include "brume/nn/ops/winograd.h"

namespace brume::nn {
namespace {

using onednn::memory;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Returns true if there is a bias; without one it is an empty tensor.
bool has(const Tensor& bias) { return bias.numel() > 0; }

/// All that is known of a convolution before its numbers are.
struct Plan {
  onednn::TrainingConvolution to;
  dnnl::convolution_forward forward;
  dnnl::convolution_backward_data by_x;
  dnnl::convolution_backward_weights by_weight;
  dnnl::reorder weight_forward, weight_by_x, gradient;  ///< into and out of the orders of the weight
};

dnnl::reorder reorder(const dnnl::memory::desc& from, const dnnl::memory::desc& to) {
  return dnnl::reorder(dnnl::reorder::primitive_desc(onednn::engine(), from, onednn::engine(), to));
}

/// Returns the plan for these shapes. Layers of one shape share it.
std::shared_ptr<const Plan> plan(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& out, int64_t stride,
                                 int64_t padding) {
  static onednn::ByShape<Plan> plans;
  std::vector<int64_t> shape{int64_t(x.scalar_type()), has(bias), stride, padding};
  for (const at::IntArrayRef part : {x.sizes(), weight.sizes(), weight.strides()}) shape.insert(shape.end(), part.begin(), part.end());
  return plans.find(shape, [&] {
    constexpr auto any = dnnl::memory::format_tag::any;
    const dnnl::memory::desc lies = onednn::plain(weight);
    const dnnl::memory::dims sizes(weight.sizes().begin(), weight.sizes().end());
    const auto to = onednn::learning_convolution(onednn::nhwc(x), {sizes, onednn::type(x), any}, {sizes, onednn::type(weight), any},
                                                 has(bias) ? onednn::line(bias) : dnnl::memory::desc(), onednn::nhwc(out), stride, padding);
    return Plan{to,
                dnnl::convolution_forward(to.forward),
                dnnl::convolution_backward_data(to.by_x),
                dnnl::convolution_backward_weights(to.by_weight),
                reorder(lies, to.forward.weights_desc()),
                reorder(lies, to.by_x.weights_desc()),
                reorder(to.by_weight.diff_weights_desc(), lies)};
  });
}

/// Returns memory of a weight whose order serves one pass.
Tensor passing_memory(size_t bytes) { return at::empty({int64_t(bytes)}, at::kByte); }

/// Returns true if the pass forward and that of the gradient by x take a quarter of the multiplications.
bool by_winograd(const Tensor& x, const Tensor& weight, int64_t stride, int64_t padding) {
  return winograd_fits(x.scalar_type(), x.size(2), x.size(3), weight, stride, padding);
}

/// Returns the same numbers of a linear layer, whose tokens are images one pixel wide, as images one pixel high. oneDNN's gradients on AMX
/// take up to a hundred times as long for the former; few tokens stand in one row for all images, which makes it longer.
Tensor in_rows(const Tensor& t, const Tensor& weight, int64_t stride, int64_t padding) {
  constexpr int64_t long_row = 256;
  if (t.size(3) != 1 || weight.size(2) * weight.size(3) != 1 || stride != 1 || padding != 0) return t;
  const int64_t batch = t.size(2) < long_row ? 1 : t.size(0);
  return t.permute({0, 2, 3, 1}).reshape({batch, 1, t.size(0) * t.size(2) / batch, t.size(1)}).permute({0, 3, 1, 2});
}

/// Returns the numbers of rows in the shape that they had.
Tensor as_in(const Tensor& before, const Tensor& rows) {
  if (rows.sizes() == before.sizes()) return rows;
  return rows.permute({0, 2, 3, 1}).reshape({before.size(0), before.size(2), before.size(3), before.size(1)}).permute({0, 3, 1, 2});
}

/// Returns true if all three passes are products of matrices in float32.
bool by_matmul(const Tensor& x, const Tensor& weight, int64_t stride, int64_t padding) {
  return x.scalar_type() == at::kFloat && weight.size(2) * weight.size(3) == 1 && stride == 1 && padding == 0 && matmul_fits();
}

/// Returns the channels of all pixels, [pixels, C]; image: [B, C, H, W], channels last.
Matrix pixels_of(const Tensor& image) { return {image.data_ptr<float>(), image.numel() / image.size(1), image.size(1), image.size(1), 1}; }

/// Returns [out, in]; weight: [out, in, 1, 1], dense.
Matrix matrix_of(const Tensor& weight) {
  const bool rows = weight.size(1) == 1 || weight.stride(1) == 1;
  return {weight.data_ptr<float>(), weight.size(0), weight.size(1), rows ? weight.size(1) : 1, rows ? 1 : weight.size(0)};
}

/// weight and bias: float32.
struct LearningConv final : torch::autograd::Function<LearningConv> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride,
                        int64_t padding) {
    context->save_for_backward({x, weight, bias});
    context->saved_data["stride"] = stride;
    context->saved_data["padding"] = padding;
    const Tensor out = onednn::convolved(x, weight, stride, padding);
    if (by_winograd(x, weight, stride, padding)) {
      winograd_conv2d(x, winograd_weight(weight, passing_memory), has(bias) ? bias.contiguous() : Tensor(), {}, out);
      return out;
    }
    if (tile_conv_fits(TilePass::forward, x.scalar_type(), weight, stride, padding)) {
      tile_conv2d(x, tile_weight(weight, false, passing_memory), has(bias) ? bias : Tensor(), {}, out);
      return out;
    }
    if (by_matmul(x, weight, stride, padding)) {
      matmul(pixels_of(x), matrix_of(weight).transposed(), has(bias) ? bias.contiguous().data_ptr<float>() : nullptr,
             out.data_ptr<float>());
      return out;
    }
    const auto own = plan(x, weight, bias, out, stride, padding);
    const auto& d = own->to.forward;
    const Tensor ordered = onednn::bytes(d.weights_desc());
    onednn::reorder(own->weight_forward, memory(onednn::plain(weight), weight), memory(d.weights_desc(), ordered));
    std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, memory(d.src_desc(), x)},
                                                    {DNNL_ARG_WEIGHTS, memory(d.weights_desc(), ordered)},
                                                    {DNNL_ARG_DST, memory(d.dst_desc(), out)}};
    if (has(bias)) arguments.emplace(DNNL_ARG_BIAS, memory(d.bias_desc(), bias));
    onednn::execute(d, own->forward, std::move(arguments));
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &weight = saved[1], &bias = saved[2];
    const int64_t stride = context->saved_data["stride"].toInt(), padding = context->saved_data["padding"].toInt();
    const Tensor x = in_rows(saved[0], weight, stride, padding),
                 d_out = in_rows(grads[0].contiguous(at::MemoryFormat::ChannelsLast), weight, stride, padding);
    variable_list result(5);
    if (at::GradMode::is_enabled()) {  // a gradient of the gradient is wanted
      const auto [dx, dw, db] =
          at::convolution_backward(d_out, x, weight.to(x.scalar_type()), at::OptionalIntArrayRef(at::IntArrayRef{weight.size(0)}),
                                   {stride, stride}, {padding, padding}, {1, 1}, false, {0, 0}, 1, {true, true, has(bias)});
      result[0] = as_in(saved[0], dx), result[1] = dw.to(at::kFloat);
      if (has(bias)) result[2] = db.to(at::kFloat);
      return result;
    }
    const auto on_tiles = [&](TilePass pass) { return tile_conv_fits(pass, x.scalar_type(), weight, stride, padding); };
    const bool products = by_matmul(x, weight, stride, padding);
    const auto own = products ? nullptr : plan(x, weight, bias, d_out, stride, padding);
    const double flops = 2 * double(d_out.numel()) * double(weight.numel() / weight.size(0));
    if (context->needs_input_grad(0)) {
      const OpTimer timer("conv2d gradient by x", flops);
      result[0] = at::empty_like(x);
      if (products)
        matmul(pixels_of(d_out), matrix_of(weight), nullptr, result[0].data_ptr<float>());
      else if (by_winograd(x, weight, stride, padding))
        winograd_conv2d(d_out, winograd_gradient_weight(weight, passing_memory), {}, {}, result[0]);
      else if (on_tiles(TilePass::by_x))
        tile_conv2d(d_out, tile_weight(weight, true, passing_memory), {}, {}, result[0]);
      else
        by_x(*own, weight, d_out, result[0]);
      result[0] = as_in(saved[0], result[0]);
    }
    if (context->needs_input_grad(1) || context->needs_input_grad(2)) {
      const OpTimer timer("conv2d gradient by weight", flops);
      result[1] = at::empty_like(weight);
      if (has(bias)) result[2] = at::empty_like(bias);
      if (products)
        products_by_weight(x, d_out, result[1], result[2]);
      else if (winograd_gradient_fits(x, weight, stride, padding))
        winograd_gradient(x, d_out, result[1], result[2]);
      else if (on_tiles(TilePass::by_weight))
        tile_conv_gradient(x, d_out, result[1], result[2]);
      else
        by_weight(*own, x, d_out, result[1], result[2]);
    }
    return result;
  }

 private:
  static void products_by_weight(const Tensor& x, const Tensor& d_out, const Tensor& dw, const Tensor& db) {
    const Matrix in = pixels_of(x), out = pixels_of(d_out), to = matrix_of(dw);
    if (to.column_step == 1)
      matmul(out.transposed(), in, nullptr, dw.data_ptr<float>());
    else
      matmul(in.transposed(), out, nullptr, dw.data_ptr<float>());
    if (db.defined()) column_sums(out, db.data_ptr<float>());
  }

  static void by_x(const Plan& own, const Tensor& weight, const Tensor& d_out, const Tensor& dx) {
    const auto& d = own.to.by_x;
    const Tensor ordered = onednn::bytes(d.weights_desc());
    onednn::reorder(own.weight_by_x, memory(onednn::plain(weight), weight), memory(d.weights_desc(), ordered));
    onednn::execute(d, own.by_x,
                    {{DNNL_ARG_DIFF_DST, memory(d.diff_dst_desc(), d_out)},
                     {DNNL_ARG_WEIGHTS, memory(d.weights_desc(), ordered)},
                     {DNNL_ARG_DIFF_SRC, memory(d.diff_src_desc(), dx)}});
  }

  static void by_weight(const Plan& own, const Tensor& x, const Tensor& d_out, const Tensor& dw, const Tensor& db) {
    const auto& d = own.to.by_weight;
    const Tensor ordered = onednn::bytes(d.diff_weights_desc());
    std::unordered_map<int, dnnl::memory> arguments{{DNNL_ARG_SRC, memory(d.src_desc(), x)},
                                                    {DNNL_ARG_DIFF_DST, memory(d.diff_dst_desc(), d_out)},
                                                    {DNNL_ARG_DIFF_WEIGHTS, memory(d.diff_weights_desc(), ordered)}};
    if (db.defined()) arguments.emplace(DNNL_ARG_DIFF_BIAS, memory(d.diff_bias_desc(), db));
    onednn::execute(d, own.by_weight, std::move(arguments));
    onednn::reorder(own.gradient, memory(d.diff_weights_desc(), ordered), memory(onednn::plain(dw), dw));
  }
};

}  // namespace

Tensor training_conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t stride, int64_t padding) {
  if (onednn::widens(x)) return training_conv2d(x.to(at::kFloat), weight, bias, stride, padding).to(x.scalar_type());
  const auto wide = [](const Tensor& t) { return t.scalar_type() == at::kFloat ? t : t.to(at::kFloat); };
  const Tensor w = wide(weight);
  return LearningConv::apply(x, w.is_non_overlapping_and_dense() ? w : w.contiguous(),
                             bias.defined() ? wide(bias) : at::empty({0}, w.options()), stride, padding);
}

}  // namespace brume::nn
