#include "brume/interop/weight_change.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/inverse.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>

#include "brume/config/counted.h"
#include "brume/interop/input_rotation.h"

namespace brume {
namespace {

using at::Tensor;

Tensor wide(const Tensor& t) { return t.to(at::kFloat); }
Tensor matrix(const Tensor& t) { return wide(t).flatten(1); }
std::string text_of(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

int64_t product_of(at::IntArrayRef sizes) {
  int64_t numel = 1;
  for (const int64_t n : sizes) numel *= n;
  return numel;
}

/// Returns t [r, s, k, k] with a [r, out] and b [s, in] at its first two axes: [out, in, k, k].
Tensor with_core(const Tensor& t, const Tensor& a, const Tensor& b) {
  return at::einsum("ijkl,ip,jq->pqkl", {wide(t), matrix(a), matrix(b)});
}

Tensor lora(const WeightChange& c) {
  const Tensor up = matrix(c.part("lora_up")), down = matrix(c.part("lora_down")), mid = c.part("lora_mid");
  return mid.defined() ? with_core(mid, up.t(), down) : at::matmul(up, down);
}

Tensor loha(const WeightChange& c) {
  const auto half = [&](const std::string& n) {
    const Tensor a = c.part("hada_w" + n + "_a"), b = c.part("hada_w" + n + "_b"), core = c.part("hada_t" + n);
    return core.defined() ? with_core(core, a, b) : at::matmul(matrix(a), matrix(b));
  };
  return half("1") * half("2");
}

/// Returns kron(w1, w2) of the sizes of a weight: entry [a b, c d, k] = w1[a, c] w2[b, d, k].
Tensor lokr(const WeightChange& c, at::IntArrayRef sizes) {
  const auto side = [&](const std::string& n) {
    const Tensor whole = c.part("lokr_w" + n), a = c.part("lokr_w" + n + "_a"), b = c.part("lokr_w" + n + "_b"),
                 core = c.part("lokr_t" + n);
    if (whole.defined()) return wide(whole);
    return core.defined() ? with_core(core, a, b) : at::matmul(matrix(a), matrix(b));
  };
  const Tensor w1 = side("1"), w2 = side("2");
  const int64_t inner = sizes[1] / w1.size(1), outer = w2.size(0);
  return (w1.reshape({w1.size(0), 1, w1.size(1), 1, 1}) * w2.reshape({1, outer, 1, inner, -1})).reshape(sizes);
}

Tensor ia3(const WeightChange& c, const Tensor& w, double strength) {
  std::vector<int64_t> shape(size_t(w.dim()), 1);
  if (const Tensor factor = c.part("ia3_l"); factor.defined()) {
    for (int64_t i = 0; i < std::min(factor.dim(), w.dim()); ++i) shape[size_t(i)] = factor.size(i);
    return w * ((wide(factor).reshape(shape) - 1) * strength);
  }
  const Tensor on = c.part("on_input"), factor = wide(c.part("weight")).flatten();
  shape[on.defined() && on.ne(0).any().item<bool>() ? 1 : 0] = factor.numel();
  return w * (factor.view(shape) * strength);
}

/// Sorts the factors of GLoRA: W A + B with A = a_left a_right, B = b_left b_right. The first files had the two of each in the other order.
Tensor glora(const WeightChange& c, const Tensor& w) {
  Tensor a1 = matrix(c.part("a1")), a2 = matrix(c.part("a2")), b1 = c.part("b1"), b2 = c.part("b2");
  if (b1.size(0) != w.size(0) && b2.size(0) == w.size(0)) std::swap(a1, a2), std::swap(b1, b2);
  const Tensor core = c.part("bm");
  const Tensor b = core.defined() ? with_core(core, matrix(b1).t(), matrix(b2)) : at::matmul(matrix(b1), matrix(b2));
  const Tensor a = at::matmul(a1, a2), moved = w.dim() > 2 ? at::einsum("oik,ij->ojk", {w.flatten(2), a}) : at::matmul(w, a);
  return moved.reshape(w.sizes()) + b.reshape(w.sizes());
}

/// Returns the orthogonal blocks (1 + Q)(1 - Q)^-1 of blocks P [..., b, b]; the norm of Q is at most alpha times `out`, if alpha > 0.
Tensor cayley(const WeightChange& c, const Tensor& blocks, int64_t out) {
  Tensor q = blocks - blocks.transpose(-1, -2);
  const double bound = c.has_alpha ? c.alpha * double(out) : 0;
  if (bound > 0) {
    constexpr double least = 1e-8;
    const double norm = q.norm().item<double>() + least;
    if (norm > bound) q = q * (bound / norm);
  }
  const Tensor one = at::eye(blocks.size(-1), blocks.options());
  return at::matmul(one + q, at::inverse(one - q));
}

/// Applies one butterfly factor to the rows of w: blocks r [n, b, b] over rows that stand 2^i b / 2 apart.
Tensor butterfly(const Tensor& w, const Tensor& r, int64_t i) {
  const int64_t size = r.size(-1), apart = (int64_t(1) << i) * (size / 2);
  const Tensor rows = w.flatten(1);
  const Tensor gathered = rows.reshape({-1, 2, apart, rows.size(1)}).transpose(1, 2).reshape({-1, size, rows.size(1)});
  return at::matmul(r, gathered).reshape({-1, apart, 2, rows.size(1)}).transpose(1, 2).reshape(w.sizes());
}

Tensor oft(const WeightChange& c, const Tensor& w, double strength) {
  const Tensor p = wide(c.part("oft_blocks")), rescale = c.part("rescale");
  const Tensor one = at::eye(p.size(-1), p.options());
  const Tensor r = cayley(c, p, w.size(0)) * strength + one * (1 - strength);
  Tensor turned = w;
  if (p.dim() == 4)
    for (int64_t i = 0; i < p.size(0); ++i) turned = butterfly(turned, r[i], i);
  else
    turned = at::matmul(r.transpose(1, 2), w.flatten(1).reshape({p.size(0), p.size(1), -1})).reshape(w.sizes());
  return (rescale.defined() ? turned * wide(rescale) : turned) - w;
}

/// Returns the norms of the rows of a weight, or of its columns if `like` has one value for each of them, and 2^-23 against division by 0.
Tensor norms(const Tensor& w, const Tensor& like) {
  std::vector<int64_t> over;
  const bool columns = like.size(0) == 1 && w.size(0) > 1;
  for (int64_t i = 0; i < w.dim(); ++i)
    if (i != (columns ? 1 : 0)) over.push_back(i);
  return w.norm(2, over, true) + double(std::numeric_limits<float>::epsilon());
}

Tensor additive(const WeightChange& c, at::IntArrayRef sizes) {
  if (c.part("lora_up").defined()) return lora(c);
  if (c.part("hada_w1_a").defined()) return loha(c);
  if (c.part("diff").defined()) return wide(c.part("diff"));
  return lokr(c, sizes);
}

bool has_side(const WeightChange& c, const std::string& n) {
  return c.part("lokr_w" + n).defined() || (c.part("lokr_w" + n + "_a").defined() && c.part("lokr_w" + n + "_b").defined());
}

/// Returns what the sizes of a LoRA's matrices have wrong, or "".
std::string lora_problem(const std::string& module, const WeightChange& c, const std::string& weight, at::IntArrayRef sizes) {
  const Tensor down = c.part("lora_down"), up = c.part("lora_up"), mid = c.part("lora_mid");
  if (!down.defined() || !up.defined()) return fmt::format("'{}' has no {} matrix", module, down.defined() ? "up" : "down");
  const bool core = mid.defined();
  if (down.dim() < 2 || up.dim() < 2 || (core && (mid.dim() != 4 || down.dim() != 4 || mid.size(0) != up.size(1))) ||
      (core ? mid.size(1) : up.size(1)) != down.size(0) || up.numel() != up.size(0) * up.size(1))
    return fmt::format("'{}': up {} and down {}{} cannot be multiplied", module, text_of(up.sizes()), text_of(down.sizes()),
                       core ? " with a core " + text_of(mid.sizes()) : "");
  if (down.size(0) < 1 || !std::isfinite(c.scale()))
    return fmt::format("'{}' has rank {} and alpha {}; its scale, alpha / rank, must be a number", module, down.size(0), c.alpha);
  std::vector<int64_t> shape = down.sizes().vec();
  shape[0] = up.size(0);
  if (core) shape[2] = mid.size(2), shape[3] = mid.size(3);
  if (shape[0] != sizes[0] || product_of(shape) != product_of(sizes))
    return fmt::format("'{}' changes a weight {}, and '{}' is {}", module, text_of(shape), weight, text_of(sizes));
  return {};
}

/// Returns the number of values that a change of another kind has, or -1 if its parts do not say it.
int64_t count_of(const WeightChange& c, at::IntArrayRef sizes) {
  const auto pair = [](const Tensor& a, const Tensor& b, const Tensor& core) {
    if (a.dim() < 2 || b.dim() < 2) return int64_t(-1);
    if (core.defined()) return core.dim() == 4 ? a.size(1) * b.size(1) * core.size(2) * core.size(3) : int64_t(-1);
    return b.size(0) > 0 ? a.size(0) * (b.numel() / b.size(0)) : int64_t(-1);
  };
  const std::string kind = c.kind();
  if (c.part("hada_w1_a").defined()) return pair(c.part("hada_w1_a"), c.part("hada_w1_b"), c.part("hada_t1"));
  if (c.part("diff").defined()) return c.part("diff").numel();
  if (has_side(c, "1")) {
    const auto side = [&](const std::string& n) {
      const Tensor whole = c.part("lokr_w" + n);
      return whole.defined() ? whole.numel() : pair(c.part("lokr_w" + n + "_a"), c.part("lokr_w" + n + "_b"), c.part("lokr_t" + n));
    };
    return side("1") * side("2");
  }
  return product_of(sizes);
}

}  // namespace

Tensor WeightChange::part(std::string_view role) const {
  const auto found = parts.find(role);
  return found == parts.end() ? Tensor() : found->second;
}

std::string WeightChange::kind() const {
  const auto all = [&](std::initializer_list<const char*> roles) {
    for (const char* role : roles)
      if (!part(role).defined()) return false;
    return true;
  };
  const bool lora = all({"lora_up"}) || all({"lora_down"}), loha = all({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"});
  const bool lokr = has_side(*this, "1") && has_side(*this, "2");
  if (all({"dora_scale"}) && (lora || loha || lokr || all({"diff"}))) return "DoRA";
  if (lora) return "LoRA";
  if (loha) return "LoHa";
  if (lokr) return "LoKr";
  if (all({"a1", "a2", "b1", "b2"})) return "GLoRA";
  if (is_input_rotation(*this)) return part("boft_R").defined() ? "BOFT" : "OFT";
  if (all({"oft_blocks"})) return part("oft_blocks").dim() == 4 ? "BOFT" : "OFT";
  if (all({"diff"})) return "difference";
  return all({"weight", "on_input"}) || all({"ia3_l"}) ? "IA3" : "";
}

int64_t WeightChange::rank() const {
  for (const char* first : {"lora_down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"})
    if (const Tensor t = part(first); t.defined() && t.dim() > 1) return t.size(0);
  if (const Tensor a1 = part("a1"), a2 = part("a2"); a1.defined() && a2.defined()) return std::min(a1.size(0), a1.size(1));
  return given_rank;
}

double WeightChange::scale() const {
  if (!has_alpha || (rank() == 0 && !part("lora_down").defined())) return 1;
  return alpha / std::pow(double(rank()), rank_power);
}

std::string problem_of(const std::string& module, const WeightChange& c, const std::string& weight, at::IntArrayRef sizes) {
  const std::string kind = c.kind();
  if (kind.empty()) {
    std::vector<std::string> roles;
    for (const auto& [role, tensor] : c.parts) roles.push_back(role);
    return fmt::format("'{}' is incomplete: {} without the rest of its parts", module, fmt::join(roles, ", "));
  }
  if (kind == "LoRA" || c.part("lora_up").defined()) return lora_problem(module, c, weight, sizes);
  if (sizes.size() < 2 && kind != "difference")
    return fmt::format("'{}' is a {}, which changes matrices, and '{}' is {}", module, kind, weight, text_of(sizes));
  for (const auto& [role, tensor] : c.parts)
    if (tensor.numel() == 0) return fmt::format("'{}': {} is empty", module, role);
  if (!std::isfinite(c.scale()))
    return fmt::format("'{}' has rank {} and alpha {}; its scale, alpha / rank, must be a number", module, c.rank(), c.alpha);
  if (is_input_rotation(c))
    if (const std::string wrong = rotation_problem(c, sizes); !wrong.empty()) return fmt::format("'{}': {} of '{}'", module, wrong, weight);
  if (const int64_t count = count_of(c, sizes); count != product_of(sizes))
    return fmt::format("'{}', a {}, changes a weight of {}, and '{}' is {}", module, kind, counted(count, "value"), weight, text_of(sizes));
  return {};
}

Tensor added_by(const WeightChange& c, const Tensor& weight, double strength) {
  if (is_input_rotation(c)) return (rotated(c, wide(weight)) - wide(weight)) * strength;
  if (c.part("oft_blocks").defined()) return oft(c, wide(weight), strength);
  if (c.part("ia3_l").defined() || c.part("on_input").defined()) return ia3(c, wide(weight), strength);
  if (c.part("a1").defined()) return glora(c, wide(weight)) * (strength * c.scale());
  const Tensor delta = additive(c, weight.sizes()).reshape(weight.sizes()), magnitude = c.part("dora_scale");
  if (!magnitude.defined()) return delta * (strength * c.scale());
  const Tensor w = wide(weight), sum = w + delta * c.scale();
  std::vector<int64_t> shape = magnitude.sizes().vec();
  shape.resize(size_t(w.dim()), 1);
  const Tensor m = wide(magnitude).reshape(shape), s = m / norms(sum, m);
  return sum * (strength == 1 ? s : (s - 1) * strength + 1) - w;
}

Tensor row_norms(const Tensor& weight) {
  const Tensor w = wide(weight);
  return norms(w, w);
}

}  // namespace brume
