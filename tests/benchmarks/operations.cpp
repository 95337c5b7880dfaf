// Each operation of framework/nn at the shapes that matter, on brume's own path and on LibTorch's operations:
//   cmake --build build --target bench_operations && build/tests/bench_operations --benchmark_filter=attention
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brume/nn/blocks/layers.h"
#include "brume/nn/ops/group_norm.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/nn/ops/ops.h"

namespace brume {
namespace {

using Sizes = std::vector<int64_t>;

Tensor normal(const Sizes& sizes, at::ScalarType type) {
  const Tensor x = at::randn(sizes, at::detail::createCPUGenerator(1), at::TensorOptions().dtype(at::kFloat)).to(type);
  return sizes.size() == 4 ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
}

constexpr at::ScalarType types[] = {at::kBFloat16, at::kFloat};

/// An operation of x on both paths; with `gradient` that of all that learns as well.
void add(const std::string& name, const std::function<Tensor(const Tensor&)>& operation, const Sizes& sizes, bool gradient = false,
         const std::vector<Tensor>& learn = {}) {
  const nn::Isa best = nn::isa();
  for (const at::ScalarType type : types)
    for (const nn::Isa isa : {best, nn::Isa::reference}) {
      const std::string path =
          fmt::format("{}/{}", type == at::kFloat ? "float32" : "bfloat16", isa == nn::Isa::reference ? "libtorch" : nn::isa_name(isa));
      benchmark::RegisterBenchmark(fmt::format("{}/{}{}/{}", name, fmt::join(sizes, "x"), gradient ? "/gradient" : "", path).c_str(),
                                   [=](benchmark::State& state) {
                                     nn::set_isa(isa);
                                     const nn::MemoryPoolScope keep;
                                     const at::AutoGradMode mode(gradient);
                                     const Tensor x = normal(sizes, type).set_requires_grad(gradient);
                                     for (Tensor t : learn) t.set_requires_grad(gradient);
                                     const auto once = [&] {
                                       Tensor y = operation(x);
                                       if (gradient) y.sum().backward();
                                       benchmark::DoNotOptimize(y.data_ptr());
                                     };
                                     for (int warm = 0; warm < 2; ++warm) once();  // weights are packed once, and memory is kept
                                     double flops = 0;
                                     for (auto _ : state) {
                                       const nn::OpProfile profile;
                                       once();
                                       flops += profile.flops();
                                     }
                                     for (Tensor t : learn) t.set_requires_grad(false);
                                     if (flops > 0) state.counters["FLOP"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
                                   })
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
    }
}

void add_convolutions() {
  const nn::Builder build(1);
  const auto conv = [&](int64_t out, const Sizes& sizes, int64_t kernel = 3, bool gradient = false) {
    const auto layer = std::make_shared<nn::Conv2d>(build.conv2d("a", sizes[1], out, kernel));
    add(fmt::format("conv2d_{0}x{0}_to_{1}", kernel, out), [layer](const Tensor& x) { return (*layer)(x); }, sizes, gradient,
        {layer->weight, layer->bias});
  };
  for (const auto& [out, sizes] : std::vector<std::pair<int64_t, Sizes>>{{320, {2, 320, 64, 64}},
                                                                         {640, {2, 1920, 32, 32}},
                                                                         {1280, {2, 2560, 16, 16}},
                                                                         {1280, {2, 1280, 8, 8}},
                                                                         {256, {1, 256, 256, 256}},
                                                                         {128, {1, 128, 512, 512}}})
    conv(out, sizes);
  conv(320, {2, 320, 64, 64}, 1);
  for (const auto& [out, sizes] :
       std::vector<std::pair<int64_t, Sizes>>{{32, {64, 32, 28, 28}}, {128, {32, 128, 32, 32}}, {256, {32, 256, 16, 16}}})
    conv(out, sizes, 3, true);
}

void add_rows() {
  const nn::Builder build(2);
  const auto linear = [&](int64_t out, const Sizes& sizes) {
    const auto layer = std::make_shared<nn::Linear>(build.linear("a", sizes.back(), out));
    add(
        fmt::format("linear_to_{}", out), [layer](const Tensor& x) { return (*layer)(x); }, sizes);
  };
  linear(320, {2, 4096, 320}), linear(2560, {2, 4096, 320}), linear(320, {2, 4096, 1280});
  linear(5120, {2, 1024, 640}), linear(10240, {2, 256, 1280}), linear(1280, {2, 256, 5120});
  const auto norm = std::make_shared<nn::LayerNorm>(build.layer_norm("b", 320));
  add("layer_norm", [norm](const Tensor& x) { return (*norm)(x); }, {2, 4096, 320});
  add("geglu", [](const Tensor& x) { return nn::geglu(x); }, {2, 4096, 2560});
  add(
      "geglu", [](const Tensor& x) { return nn::geglu(x); }, {2, 4096, 2560}, true);
}

void add_norms() {
  for (const Sizes& sizes : std::vector<Sizes>{{2, 320, 64, 64}, {2, 1280, 16, 16}, {64, 32, 28, 28}, {1, 128, 512, 512}}) {
    const nn::Builder build(3);
    const auto norm = std::make_shared<nn::GroupNorm>(build.group_norm("a", sizes[1]));
    const auto operation = [norm](const Tensor& x) { return norm->silu(x); };
    add("group_norm_silu", operation, sizes);
    if (sizes[0] > 2) add("group_norm_silu", operation, sizes, true, {norm->weight, norm->bias});
  }
}

void add_attention() {
  struct Shape {
    int64_t batch, heads, queries, keys, width;
    bool gradient = false;
  };
  for (const Shape& s : std::vector<Shape>{{2, 8, 4096, 4096, 40},
                                           {2, 8, 1024, 1024, 80},
                                           {2, 8, 256, 256, 160},
                                           {2, 8, 4096, 77, 40},
                                           {1, 1, 4096, 4096, 512},
                                           {32, 4, 256, 256, 64, true},
                                           {64, 4, 49, 49, 24, true}}) {
    std::vector<Tensor> keys;
    for (const at::ScalarType type : types) keys.push_back(normal({s.batch, s.keys, s.heads, s.width}, type).contiguous().transpose(1, 2));
    const auto operation = [keys](const Tensor& x) {
      const Tensor& k = keys[x.scalar_type() == types[0] ? 0 : 1];
      return nn::attention(x.contiguous().transpose(1, 2), k, k);
    };
    add(fmt::format("attention_{}_keys", s.keys), operation, {s.batch, s.queries, s.heads, s.width}, s.gradient, keys);
  }
}

}  // namespace
}  // namespace brume

int main(int argc, char** argv) {
  brume::add_convolutions();
  brume::add_rows();
  brume::add_norms();
  brume::add_attention();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
