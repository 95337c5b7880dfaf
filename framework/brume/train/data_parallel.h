#pragma once
// What the processes of a data-parallel training exchange.
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/core/network.h"
#include "brume/distributed/world.h"

namespace brume {

/// Replaces the gradients of the weights by their sums over all processes, in flat buckets of 25 MiB in the order of the weights. A weight
/// without a gradient on every process stays without.
void sum_gradients(const std::vector<Weight>& weights, World& world);

/// Sums numbers over all processes.
void sum_numbers(std::vector<double>& numbers, World& world);

/// Returns which process keeps and updates each weight: the largest first, each to the process that has the least.
std::vector<int64_t> owners_of(const std::vector<Weight>& weights, int64_t processes);

/// Overwrites each weight by that of its owner, in flat buckets.
void share_weights(const std::vector<Weight>& weights, const std::vector<int64_t>& owners, World& world);

/// Returns the tensors of all processes on rank 0, on the CPU, each name once; nothing on the others.
std::vector<Weight> collect(const std::vector<Weight>& mine, World& world);

/// Compares the processes before the first step. Throws ConfigError on all of them, with the key and the rank, if one has another build, or
/// configuration, and with the rank, if it has other initial weights. `build`: "brume 0.2.0, ...". The numbers of threads and of workers
/// may differ.
void check_agreement(const std::string& build, const Value& resolved, const std::vector<Weight>& weights, World& world);

}  // namespace brume
