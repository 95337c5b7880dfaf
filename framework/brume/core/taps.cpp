#include "brume/core/taps.h"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "brume/config/errors.h"
#include "brume/config/suggest.h"

namespace brume {
namespace {

template <class Map>
void check_names(const Map& taps, const std::vector<std::string>& known, const char* what, std::vector<Problem>& problems) {
  for (const auto& [name, _] : taps) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string nearest = known.empty() ? "; it names none" : hint(name, known);
    problems.push_back({{}, "", fmt::format("the network has no {} '{}'{}", what, name, nearest)});
  }
}

using Residuals = std::map<std::string, Tensor, std::less<>>;

Tensor added(const Residuals& residuals, std::string_view name, const Tensor& h) {
  const auto found = residuals.find(name);
  if (found == residuals.end()) return h;
  if (found->second.sizes() != h.sizes())
    throw ConfigError(fmt::format("the residual of block '{}' has shape [{}], and the block's output [{}]", name,
                                  fmt::join(found->second.sizes(), ", "), fmt::join(h.sizes(), ", ")));
  return h + found->second.to(h.scalar_type());
}

}  // namespace

void Taps::check(const TapPoints& points) const {
  std::vector<Problem> problems;
  check_names(residuals, points.blocks, "block", problems);
  check_names(blocks, points.blocks, "block", problems);
  check_names(skip_residuals, points.skip_connections, "skip connection", problems);
  check_names(attention, points.attention, "attention", problems);
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

Tensor Taps::apply(std::string_view name, const Tensor& input, const std::function<Tensor()>& compute) const {
  const auto block = blocks.find(name);
  return added(residuals, name, block == blocks.end() ? compute() : block->second(input, compute));
}

Tensor Taps::skip(std::string_view name, const Tensor& h) const { return added(skip_residuals, name, h); }

}  // namespace brume
