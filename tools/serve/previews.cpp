#include "serve/previews.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include "brume/files/text_file.h"
#include "brume/image/image.h"
#include "brume/image/image_codec.h"

namespace brume::tools {
namespace {

/// Returns rows of [latent, 1], one per place of [1, C, h, w].
Tensor rows_of(const Tensor& latent) {
  const Tensor flat = latent[0].flatten(1).t();
  return at::cat({flat, at::ones({flat.size(0), 1}, flat.options())}, 1);
}

}  // namespace

std::string Previews::png(const Model& model, const SampleProgress& progress, int64_t row) const {
  const at::NoGradGuard no_grad;
  const Tensor x0 = progress.step.x0.narrow(0, row, 1).to(at::kCPU, at::kFloat);
  const ImageShape image = model.shape(), latent = model.latent();
  if (image.channels == latent.channels && image.height == latent.height) return encode_png(to_image(x0[0]));
  if (tiny_) return encode_png(to_image(tiny_->decode(x0)[0].to(at::kFloat)));
  if (!map_.defined()) {
    const Tensor decoded = model.decode(x0);
    const Tensor pixels = at::adaptive_avg_pool2d(decoded, {x0.size(2), x0.size(3)})[0].flatten(1).t(), from = rows_of(x0);
    const Tensor ridge = at::eye(from.size(1), from.options()) * 1e-3 * double(from.size(0));
    map_ = at::linalg_solve(at::matmul(from.t(), from) + ridge, at::matmul(from.t(), pixels));
    return encode_png(to_image(decoded[0]));
  }
  const Tensor pixels = at::matmul(rows_of(x0), map_).t().reshape({image.channels, x0.size(2), x0.size(3)});
  return encode_png(to_image(pixels));
}

}  // namespace brume::tools
