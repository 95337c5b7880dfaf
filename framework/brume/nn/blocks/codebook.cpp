#include "brume/nn/blocks/codebook.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "brume/core/step_parts.h"
#include "brume/nn/ops/ops.h"

namespace brume::nn {
namespace {

/// Maps [B, C, H, W] to one row per position, [B, H W, C] float32, without gradient.
Tensor positions(const Tensor& z) {
  return z.detach().to(at::kFloat).permute({0, 2, 3, 1}).reshape({z.size(0), z.size(2) * z.size(3), z.size(1)});
}

}  // namespace

void CodebookOptions::declare(Fields& f) {
  f.field("codes", codes, "vectors of the codebook", at_least(2));
  f.field("commitment", commitment, "weight (beta) of the term that keeps the encoder near its codes", at_least(0));
  f.choice("codebook", learning, "update of the codes: by gradients, or as moving averages of the vectors nearest to them",
           {{"gradient", Learning::gradient}, {"ema", Learning::ema}});
  f.field("decay", decay, "decay of the moving averages", within(0, 1));
  f.renamed("revive", "restart_after");
  f.field("restart_after", restart_after, "updates without use after which a code restarts as a vector of the encoder; 0 = never",
          at_least(0));
}

Codebook::Codebook(const Builder& build, const CodebookOptions& o, int64_t width) : o_(o) {
  const Builder embedding = build["embedding"];
  const double bound = 1 / double(o.codes);
  if (ema()) {
    codes_ = embedding.buffer("weight", at::empty({o.codes, width}, at::kFloat).uniform_(-bound, bound, build.random()));
    cluster_size_ = embedding.buffer("cluster_size", at::ones({o.codes}, at::kFloat));
    embed_avg_ = embedding.buffer("embed_avg", codes_.clone());
  } else {
    codes_ = build.embedding("embedding", o.codes, width).weight;
    codes_.uniform_(-bound, bound, build.random());
  }
  if (o.restart_after > 0) unused_ = build.buffer("unused", at::zeros({o.codes}, at::kFloat));
}

Tensor Codebook::nearest(const Tensor& z) const {
  // The nearest is the one with the largest z . e - |e|^2 / 2. How positions are cut does not depend on the batch.
  constexpr int64_t at_once = int64_t(1) << 22;
  const at::NoGradGuard no_grad;
  const Tensor rows = positions(z), codes = codes_.detach().to(at::kFloat), bias = (codes * codes).sum(1) * -0.5;
  const int64_t batch = rows.size(0), count = rows.size(1);
  const int64_t length = std::clamp<int64_t>(at_once / o_.codes, 1, count);
  const int64_t images = std::clamp<int64_t>(at_once / (o_.codes * length), 1, batch);
  const Tensor found = at::empty({batch, count}, rows.options().dtype(at::kLong));
  for (int64_t i = 0; i < batch; i += images) {
    for (int64_t j = 0; j < count; j += length) {
      const auto part = [&](const Tensor& t) {
        return t.narrow(0, i, std::min(images, batch - i)).narrow(1, j, std::min(length, count - j));
      };
      part(found).copy_(linear(part(rows).contiguous(), codes, bias).argmax(-1));
    }
  }
  return found.view({batch, z.size(2), z.size(3)});
}

Tensor Codebook::vectors(const Tensor& codes) const {
  const Tensor rows = codes_.to(at::kFloat).index_select(0, codes.reshape({-1}));
  return rows.view({codes.size(0), codes.size(1), codes.size(2), rows.size(1)}).permute({0, 3, 1, 2});
}

Codebook::Quantised Codebook::quantise(const Tensor& z) const {
  const Tensor codes = nearest(z), q = vectors(codes);
  const auto distance = [](const Tensor& a, const Tensor& b) { return ((a - b) * (a - b)).mean(); };
  Tensor loss = distance(q.detach(), z) * o_.commitment;
  if (!ema()) loss = loss + distance(q, z.detach());
  if (at::GradMode::is_enabled()) remember(z, codes);
  return {z + (q - z).detach(), loss, codes};
}

void Codebook::remember(const Tensor& z, const Tensor& codes) const {
  if (!ema() && o_.restart_after == 0) return;
  const at::NoGradGuard no_grad;
  const Tensor rows = positions(z).flatten(0, 1), flat = codes.flatten();
  Tensor counts = at::bincount(flat, {}, o_.codes).to(at::kFloat);
  if (!at::isfinite(rows).all().item<bool>()) counts.fill_(NAN);  // the trainer leaves such a step out; the averages would never forget it
  when_whole(counts.unsqueeze(0), [this](const Tensor& all) {
    const std::lock_guard lock(mutex_);
    const Tensor sum = all.sum(0);
    seen_.finite = at::isfinite(sum).all().item<bool>();
    if (seen_.finite) seen_.counts = seen_.counts.defined() ? seen_.counts + sum : sum;
  });
  if (o_.restart_after > 0)
    when_whole(rows, [this](const Tensor& all) {
      const std::lock_guard lock(mutex_);
      if (seen_.finite) seen_.vectors = all;
    });
  if (!ema()) return;
  when_whole(at::zeros_like(codes_).index_add_(0, flat, rows).unsqueeze(0), [this](const Tensor& all) {
    const std::lock_guard lock(mutex_);
    const Tensor sum = all.sum(0);
    if (seen_.finite) seen_.sums = seen_.sums.defined() ? seen_.sums + sum : sum;
  });
}

void Codebook::update(at::Generator& random) const {
  const at::NoGradGuard no_grad;
  const std::lock_guard lock(mutex_);
  if (!seen_.counts.defined()) return;
  if (ema()) move();
  if (o_.restart_after > 0) restart_unused(random);
  seen_ = {};
}

void Codebook::move() const {
  constexpr double eps = 1e-5;
  cluster_size_.mul_(o_.decay).add_(seen_.counts, 1 - o_.decay);
  embed_avg_.mul_(o_.decay).add_(seen_.sums, 1 - o_.decay);
  const Tensor total = cluster_size_.sum();
  const Tensor smoothed = (cluster_size_ + eps) / (total + double(o_.codes) * eps) * total;
  codes_.copy_(embed_avg_ / smoothed.unsqueeze(1));
}

void Codebook::restart_unused(at::Generator& random) const {
  unused_.copy_(at::where(seen_.counts > 0, at::zeros_like(unused_), unused_ + 1));
  Tensor dead = at::nonzero(unused_ >= double(o_.restart_after)).flatten();
  const int64_t count = std::min(dead.size(0), seen_.vectors.size(0));  // the others wait for the next update
  if (count == 0) return;
  dead = dead.narrow(0, 0, count);
  const Tensor drawn = at::randperm(seen_.vectors.size(0), random, at::TensorOptions().dtype(at::kLong)).narrow(0, 0, count);
  const Tensor vectors = seen_.vectors.index_select(0, drawn.to(dead.device()));
  codes_.index_copy_(0, dead, vectors.to(codes_.scalar_type()));
  unused_.index_fill_(0, dead, 0);
  if (!ema()) return;
  embed_avg_.index_copy_(0, dead, vectors);
  cluster_size_.index_fill_(0, dead, 1);
}

}  // namespace brume::nn
