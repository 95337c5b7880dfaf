#include "brume/train/data_parallel.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

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
struct Flat {
  Tensor values{};
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

Tensor empty_flat(const std::vector<Weight>& weights, std::pair<size_t, size_t> range) {
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

/// Calls a function after each backward pass that adds to the gradient of a weight, while it lives.
class GradientHook {
 public:
  GradientHook(const Tensor& weight, std::function<void()> call) : node_(torch::autograd::impl::grad_accumulator(weight)) {
    key_ = node_->add_post_hook(std::make_unique<Hook>(std::move(call)));
  }
  GradientHook(GradientHook&&) = default;
  ~GradientHook() {
    if (node_) node_->del_post_hook(key_);
  }

 private:
  struct Hook final : torch::autograd::FunctionPostHook {
    explicit Hook(std::function<void()> c) : call(std::move(c)) {}
    torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                              const torch::autograd::variable_list&) override {
      call();
      return outputs;
    }
    std::function<void()> call;
  };
  std::shared_ptr<torch::autograd::Node> node_;
  uintptr_t key_ = 0;
};

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

struct GradientSum::Bucket {
  std::pair<size_t, size_t> range;
  size_t missing = 0;  ///< gradients that the backward pass has not left yet
  Flat flat{};
};

GradientSum::GradientSum(std::vector<Weight> weights, World& world) : weights_(std::move(weights)), world_(world) {
  for (const auto& range : buckets_of(weights_)) {
    bucket_of_.resize(range.second, buckets_.size());
    buckets_.push_back({range});
  }
  for (const Weight& w : weights_) on_cpu_ = on_cpu_ && w.tensor.device().is_cpu();
}

GradientSum::~GradientSum() = default;

void GradientSum::begin(Bucket& bucket) {
  const at::NoGradGuard no_grad;
  bucket.flat = {empty_flat(weights_, bucket.range)};
  each_part(weights_, bucket.range, bucket.flat.values, [&](size_t i, Tensor part) {
    const Tensor& gradient = weights_[i].tensor.grad();
    gradient.defined() ? part.copy_(gradient) : part.zero_();
  });
  bucket.flat.pending = world_.begin_all_reduce(bucket.flat.values, World::Reduction::sum);
}

void GradientSum::arrived(size_t weight) {
  if (error_) return;
  try {
    if (arrived_[weight]) throw std::logic_error(fmt::format("{} got two gradients in one backward pass", weights_[weight].name));
    arrived_[weight] = true;
    --buckets_[bucket_of_[weight]].missing;
    while (waiting_ > 0 && buckets_[waiting_ - 1].missing == 0) begin(buckets_[--waiting_]);
  } catch (...) {  // thrown on after the backward pass, which must not be left in its middle
    error_ = std::current_exception();
  }
}

void GradientSum::during(const std::function<void()>& backward) {
  if (world_.size() == 1) return backward();
  waiting_ = buckets_.size();
  arrived_.assign(weights_.size(), false);
  for (Bucket& bucket : buckets_) bucket.missing = bucket.range.second - bucket.range.first;
  {
    std::vector<GradientHook> hooks;
    for (size_t i = 0; on_cpu_ && i < weights_.size(); ++i) hooks.emplace_back(weights_[i].tensor, [this, i] { arrived(i); });
    backward();
  }
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  while (waiting_ > 0) begin(buckets_[--waiting_]);
}

void GradientSum::finish() {
  if (world_.size() == 1) return;
  const at::NoGradGuard no_grad;
  const Tensor any = with_gradient(weights_, world_);
  for (size_t b = buckets_.size(); b-- > 0;) {
    Bucket& bucket = buckets_[b];
    bucket.flat.pending->wait();
    each_part(weights_, bucket.range, bucket.flat.values, [&](size_t i, const Tensor& part) {
      const Tensor& w = weights_[i].tensor;
      if (any.data_ptr<float>()[i] == 0) return;
      if (!w.grad().defined()) w.mutable_grad() = at::empty_like(w.detach());
      Tensor(w.grad()).copy_(part);
    });
    bucket.flat = {};
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
    Flat flat;
  };
  std::vector<Part> parts;
  for (int64_t r = 0; r < world.size(); ++r) {
    std::vector<Weight> owned;
    for (size_t i = 0; i < weights.size(); ++i)
      if (owners[i] == r) owned.push_back(weights[i]);
    for (const auto& range : buckets_of(owned)) {
      Part& part = parts.emplace_back(Part{owned, range, r == world.rank(), {empty_flat(owned, range)}});
      if (part.mine) each_part(owned, range, part.flat.values, [&](size_t i, Tensor values) { values.copy_(owned[i].tensor); });
      part.flat.pending = world.begin_broadcast(part.flat.values, r);
    }
  }
  for (const Part& part : parts) {
    part.flat.pending->wait();
    if (part.mine) continue;
    each_part(part.weights, part.range, part.flat.values,
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
