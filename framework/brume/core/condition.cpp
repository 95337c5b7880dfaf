#include "brume/core/condition.h"

#include <ATen/ops/cat.h>

#include <array>

namespace brume {
namespace {

constexpr std::array parts = {&Condition::classes, &Condition::context, &Condition::context_mask, &Condition::image,
                              &Condition::vector,  &Condition::sizes,   &Condition::guidance,     &Condition::labels,
                              &Condition::known,   &Condition::mask,    &Condition::plan};

template <class F>
Condition map(const Condition& c, const F& f) {
  Condition out;
  for (const auto part : parts)
    if ((c.*part).defined()) out.*part = f(c.*part);
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
  for (const auto part : parts) out.*part = joined(a.*part, b.*part);
  return out;
}

}  // namespace brume
