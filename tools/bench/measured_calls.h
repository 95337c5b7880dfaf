#pragma once
// The time, the memory and the operations of a call that is made again and again.
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "brume/core/tensor.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/op_profile.h"

namespace brume::tools {

struct Measured {
  std::vector<double> seconds;
  double peak_mib = 0, taken_mib = 0;  ///< resident at most; taken from the system by a call, after the first one of each round
  std::map<std::string, nn::OpProfile::Row> operations;
  double flops() const {
    double sum = 0;
    for (const auto& [_, row] : operations) sum += row.flops;
    return sum;
  }
};

/// Adds to `m` what calls take for so long, after one that makes what is made once.
void measure(const std::function<Tensor()>& call, nn::Isa isa, double seconds, Measured& m);

}  // namespace brume::tools
