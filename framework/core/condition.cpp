#include "core/condition.h"

#include <ATen/ops/cat.h>

namespace brume {
namespace {

template <class F>
Condition map(const Condition& c, const F& f) {
  Condition out;
  if (c.classes.defined()) out.classes = f(c.classes);
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
  Condition out;
  if (a.classes.defined() != b.classes.defined()) throw std::logic_error("conditions of different kinds cannot be joined");
  if (a.classes.defined()) out.classes = at::cat({a.classes, b.classes});
  return out;
}

}  // namespace brume
