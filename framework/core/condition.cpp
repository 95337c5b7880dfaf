#include "core/condition.h"

#include <ATen/ops/cat.h>

namespace brume {
namespace {

template <class F>
Condition map(const Condition& c, const F& f) {
  Condition out;
  if (c.classes.defined()) out.classes = f(c.classes);
  if (c.labels.defined()) out.labels = f(c.labels);
  if (c.known.defined()) out.known = f(c.known);
  if (c.mask.defined()) out.mask = f(c.mask);
  if (c.null) out.null = std::make_shared<Condition>(map(*c.null, f));
  return out;
}

}  // namespace

Condition Condition::slice(int64_t begin, int64_t count) const {
  return map(*this, [&](const Tensor& t) { return t.narrow(0, begin, count); });
}

Condition Condition::select(const Tensor& rows) const {
  return map(*this, [&](const Tensor& t) { return t.index_select(0, rows.to(t.device())); });
}

Condition Condition::to(at::Device device) const {
  return map(*this, [&](const Tensor& t) { return t.to(device); });
}

Condition concat(const Condition& a, const Condition& b) {
  const auto joined = [](const Tensor& x, const Tensor& y) {
    if (x.defined() != y.defined()) throw std::logic_error("conditions of different kinds cannot be joined");
    return x.defined() ? at::cat({x, y}) : Tensor();
  };
  Condition out;
  out.classes = joined(a.classes, b.classes);
  out.labels = joined(a.labels, b.labels);
  out.known = joined(a.known, b.known);
  out.mask = joined(a.mask, b.mask);
  return out;
}

}  // namespace brume
