#pragma once
// What the processes of a data-parallel training exchange.
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/core/network.h"
#include "brume/distributed/world.h"

namespace brume {

/// Replaces the gradients of weights by their sums over all processes, in flat buckets of 25 MiB in the order of the weights: the last
/// bucket first. A weight without a gradient on every process stays without. Does nothing in a world of one. The weights require gradients.
class GradientSum {
 public:
  /// `world`: lives as long.
  GradientSum(std::vector<Weight> weights, World& world);
  ~GradientSum();
  GradientSum(const GradientSum&) = delete;
  GradientSum& operator=(const GradientSum&) = delete;

  /// Runs the last backward pass of a step, and returns when the sums of all buckets have begun: of weights on the CPU, as soon as the pass
  /// has left the gradients of the bucket and of those behind it. Throws std::logic_error if it adds to a gradient more than once.
  void during(const std::function<void()>& backward);
  /// Completes the sums.
  void finish();

 private:
  struct Bucket;
  void arrived(size_t weight);
  void begin(Bucket& bucket);

  std::vector<Weight> weights_;
  World& world_;
  bool on_cpu_ = true;
  std::vector<Bucket> buckets_;
  std::vector<size_t> bucket_of_;  ///< by weight
  size_t waiting_ = 0;             ///< buckets whose sums have not begun, the first ones
  std::vector<bool> arrived_;      ///< gradients that the backward pass has left
  std::exception_ptr error_;       ///< of a sum that could not begin
};

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
