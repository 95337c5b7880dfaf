#include "brume/train/data_parallel.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>
#include <sstream>

#include "brume/config/errors.h"
#include "brume/config/yaml.h"
#include "brume/core/fnv.h"
#include "brume/train/differences.h"

namespace brume {
namespace {

constexpr int64_t bucket_values = (int64_t{25} << 20) / int64_t(sizeof(float));

/// Returns weights [begin, end) of each bucket: as many as fit, one at least.
std::vector<std::pair<size_t, size_t>> buckets_of(const std::vector<Weight>& weights) {
  std::vector<std::pair<size_t, size_t>> all;
  for (size_t begin = 0; begin < weights.size();) {
    int64_t values = weights[begin].tensor.numel();
    size_t end = begin + 1;
    while (end < weights.size() && values + weights[end].tensor.numel() <= bucket_values) values += weights[end++].tensor.numel();
    all.emplace_back(begin, end);
    begin = end;
  }
  return all;
}

/// Float32 values of some weights one after the other, on the CPU.
struct Bucket {
  Tensor flat;
  std::unique_ptr<World::Pending> pending{};
};

/// Calls use(weight, its part of the bucket).
template <class Use>
void each_part(const std::vector<Weight>& weights, std::pair<size_t, size_t> range, const Tensor& flat, const Use& use) {
  int64_t at = 0;
  for (size_t i = range.first; i < range.second; ++i) {
    const Tensor& w = weights[i].tensor;
    use(i, flat.narrow(0, at, w.numel()).view(w.sizes()));
    at += w.numel();
  }
}

Tensor empty_bucket(const std::vector<Weight>& weights, std::pair<size_t, size_t> range) {
  int64_t values = 0;
  for (size_t i = range.first; i < range.second; ++i) values += weights[i].tensor.numel();
  return at::empty({values}, at::TensorOptions().dtype(at::kFloat));
}

/// Returns 1 for each weight that has a gradient on some process.
Tensor with_gradient(const std::vector<Weight>& weights, World& world) {
  const Tensor any = at::zeros({std::max<int64_t>(1, int64_t(weights.size()))}, at::TensorOptions().dtype(at::kFloat));
  for (size_t i = 0; i < weights.size(); ++i) any.data_ptr<float>()[i] = weights[i].tensor.grad().defined() ? 1 : 0;
  world.all_reduce(any, World::Reduction::max);
  return any;
}

uint64_t hash_of(const std::vector<Weight>& weights) {
  Fnv1a hash;
  for (const Weight& w : weights) {
    const Tensor values = w.tensor.detach().cpu().contiguous();
    const auto* bytes = static_cast<const char*>(values.data_ptr());
    const size_t count = size_t(values.numel()) * values.element_size();
    for (size_t i = 0; i < count; i += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, bytes + i, std::min(sizeof word, count - i));
      hash.add(word);
    }
  }
  return hash.value;
}

bool may_differ(const Difference& d) { return d.path == "compute.threads" || d.path == "train.workers"; }

}  // namespace

void sum_gradients(const std::vector<Weight>& weights, World& world) {
  if (world.size() == 1) return;
  const at::NoGradGuard no_grad;
  const Tensor any = with_gradient(weights, world);
  const auto ranges = buckets_of(weights);
  std::vector<Bucket> buckets;
  for (const auto& range : ranges) {
    Bucket& bucket = buckets.emplace_back(Bucket{empty_bucket(weights, range)});
    each_part(weights, range, bucket.flat, [&](size_t i, Tensor part) {
      const Tensor& gradient = weights[i].tensor.grad();
      gradient.defined() ? part.copy_(gradient) : part.zero_();
    });
    bucket.pending = world.begin_all_reduce(bucket.flat, World::Reduction::sum);
  }
  for (size_t b = 0; b < buckets.size(); ++b) {
    buckets[b].pending->wait();
    each_part(weights, ranges[b], buckets[b].flat, [&](size_t i, const Tensor& part) {
      const Tensor& w = weights[i].tensor;
      if (any.data_ptr<float>()[i] == 0) return;
      if (!w.grad().defined()) w.mutable_grad() = at::empty_like(w.detach());
      Tensor(w.grad()).copy_(part);
    });
  }
}

void sum_numbers(std::vector<double>& numbers, World& world) {
  if (world.size() == 1) return;
  const Tensor t = at::zeros({int64_t(numbers.size())}, at::TensorOptions().dtype(at::kDouble));
  std::copy(numbers.begin(), numbers.end(), t.data_ptr<double>());
  world.all_reduce(t);
  std::copy_n(t.data_ptr<double>(), numbers.size(), numbers.begin());
}

std::vector<int64_t> owners_of(const std::vector<Weight>& weights, int64_t processes) {
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a].tensor.numel() > weights[b].tensor.numel(); });
  std::vector<int64_t> owners(weights.size()), values(size_t(processes), 0);
  for (const size_t i : order) {
    const auto least = std::min_element(values.begin(), values.end());
    owners[i] = least - values.begin();
    *least += weights[i].tensor.numel();
  }
  return owners;
}

void share_weights(const std::vector<Weight>& weights, const std::vector<int64_t>& owners, World& world) {
  const at::NoGradGuard no_grad;
  struct Part {
    std::vector<Weight> weights;
    std::pair<size_t, size_t> range;
    bool mine;
    Bucket bucket;
  };
  std::vector<Part> parts;
  for (int64_t r = 0; r < world.size(); ++r) {
    std::vector<Weight> owned;
    for (size_t i = 0; i < weights.size(); ++i)
      if (owners[i] == r) owned.push_back(weights[i]);
    for (const auto& range : buckets_of(owned)) {
      Part& part = parts.emplace_back(Part{owned, range, r == world.rank(), {empty_bucket(owned, range)}});
      if (part.mine) each_part(owned, range, part.bucket.flat, [&](size_t i, Tensor values) { values.copy_(owned[i].tensor); });
      part.bucket.pending = world.begin_broadcast(part.bucket.flat, r);
    }
  }
  for (const Part& part : parts) {
    part.bucket.pending->wait();
    if (part.mine) continue;
    each_part(part.weights, part.range, part.bucket.flat,
              [&](size_t i, const Tensor& values) { Tensor(part.weights[i].tensor).copy_(values); });
  }
}

std::vector<Weight> collect(const std::vector<Weight>& mine, World& world) {
  const at::NoGradGuard no_grad;
  std::string list;
  for (const Weight& w : mine) {
    list += fmt::format("{} {} {}", w.name, int(w.tensor.scalar_type()), w.tensor.dim());
    for (const int64_t side : w.tensor.sizes()) list += fmt::format(" {}", side);
    list += '\n';
  }
  const std::vector<std::string> lists = world.all_gather(list);
  std::vector<Weight> all;
  std::set<std::string> known;
  for (int64_t r = 0; r < world.size(); ++r) {
    std::istringstream lines(lists[size_t(r)]);
    std::string name;
    int type = 0, dim = 0;
    for (size_t i = 0; lines >> name >> type >> dim; ++i) {
      std::vector<int64_t> shape(static_cast<size_t>(dim));
      for (int64_t& side : shape) lines >> side;
      const Tensor values = r == world.rank() ? mine[i].tensor.detach().cpu().contiguous().clone()
                                              : at::empty(shape, at::TensorOptions().dtype(at::ScalarType(type)));
      if (values.numel() > 0) world.broadcast(values, r);
      if (world.leads() && known.insert(name).second) all.push_back({name, values, false});
    }
  }
  return all;
}

void check_agreement(const std::string& build, const Value& resolved, const std::vector<Weight>& weights, World& world) {
  if (world.size() == 1) return;
  const std::vector<std::string> builds = world.all_gather(build), configurations = world.all_gather(dump_yaml(resolved));
  const std::vector<std::string> hashes = world.all_gather(fmt::format("{:016x}", hash_of(weights)));
  const Value first = parse_yaml(configurations[0], "rank 0");
  for (size_t r = 1; r < builds.size(); ++r) {
    if (builds[r] != builds[0]) throw ConfigError(fmt::format("rank {} runs {}, and rank 0 runs {}", r, builds[r], builds[0]));
    for (const Difference& d : differences(first, parse_yaml(configurations[r], fmt::format("rank {}", r))))
      if (!may_differ(d))
        throw ConfigError(
            fmt::format("the processes have different configurations: {} is {} on rank 0 and {} on rank {}", d.path, d.before, d.after, r));
    if (hashes[r] != hashes[0]) throw ConfigError(fmt::format("the initial weights of rank {} are not those of rank 0", r));
  }
}

}  // namespace brume
