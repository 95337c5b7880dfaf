#include "bench/bench_architecture.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/eager_inception.h"
#include "bench/measured_calls.h"
#include "bench/measuring.h"
#include "bench/peaks.h"
#include "brume/config/suggest.h"
#include "brume/config/yaml.h"
#include "brume/core/autoencoder.h"
#include "brume/diffusion/compute.h"
#include "brume/files/atomic_file.h"
#include "brume/nn/blocks/inception.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/nn/ops/int8_layers.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/numerics/adam.h"
#include "program/embedded.h"

namespace brume::tools {
namespace {

struct ShapeFields {
  ImageShape shape;
  void declare(Fields& f) {
    f.field("channels", shape.channels, "", at_least(1));
    f.field("height", shape.height, "", at_least(1));
    f.field("width", shape.width, "", at_least(1));
  }
};

/// One file of tools/architectures.
struct Architecture {
  struct Tokens {
    int64_t length = 77, width = 768;
    void declare(Fields& f) {
      f.field("length", length, "", at_least(1));
      f.field("width", width, "", at_least(1));
    }
  };
  struct Text {
    nn::TextEncoderOptions o;
    void declare(Fields& f) {
      f.field("rows", o.rows, "", at_least(1));
      f.field("depth", o.depth, "", at_least(1));
      f.field("heads", o.heads, "", at_least(1));
      f.field("mlp", o.mlp, "", at_least(1));
      f.field("quick_gelu", o.quick_gelu, "");
    }
  };
  int64_t batch = 1, out_channels = 0, classes = 0, vector_width = 0;  // 0 channels: as many as there are on the way in
  bool train = false, inception = false;
  ComputeOptions compute;
  ShapeFields input, image;
  std::optional<Tokens> tokens;
  std::optional<Text> text;
  Deferred<Network> network;
  Deferred<Autoencoder> autoencoder;

  void declare(Fields& f) {
    f.field("batch", batch, "", at_least(1));
    f.field("out_channels", out_channels, "", at_least(0));
    f.field("classes", classes, "", at_least(0));
    f.field("vector_width", vector_width, "", at_least(0));
    f.field("train", train, "");
    f.section("input", input, "");
    f.section("image", image, "");
    f.section("tokens", tokens, "");
    f.section("text_encoder", text, "");
    f.section("compute", compute, "");
    f.field("inception", inception, "");
    f.field("network", network, "", "unet");
    f.field("autoencoder", autoencoder, "", "identity");
  }
};

/// Something that is measured on two paths.
struct Part {
  std::string name, unit;
  double per_call;                   ///< units a call
  std::function<Tensor()> run;       ///< on the path that is in use
  std::function<Tensor()> baseline;  ///< the same as LibTorch has it; set to nn::Isa::reference
  std::function<Tensor()> exact;     ///< the same in float32, of weights that are not rounded; empty if nothing is compared
};

void freeze(const std::vector<Weight>& weights, at::ScalarType type) {
  for (const Weight& w : weights) {
    Tensor(w.tensor).set_requires_grad(false);
    if (w.trainable) Tensor(w.tensor).set_data(w.tensor.to(type));
  }
}

/// The inputs of a network, random.
struct Inputs {
  Tensor x, c_noise;
  Condition condition;
  Inputs(const Architecture& a, int64_t batch, at::ScalarType type) {
    at::Generator random = at::detail::createCPUGenerator(1);
    const ImageShape& s = a.input.shape;
    x = at::randn({batch, s.channels, s.height, s.width}, random, at::TensorOptions().dtype(at::kFloat)).to(type);
    x = x.contiguous(at::MemoryFormat::ChannelsLast);
    c_noise = at::full({batch}, 500.0, at::kFloat);
    if (a.classes > 0) condition.classes = at::randint(a.classes, {batch}, random, at::kLong);
    if (a.vector_width > 0) condition.vector = at::randn({batch, a.vector_width}, random, at::TensorOptions().dtype(at::kFloat)).to(type);
    if (a.tokens)
      condition.context = at::randn({batch, a.tokens->length, a.tokens->width}, random, at::TensorOptions().dtype(at::kFloat)).to(type);
  }
};

class Bench {
 public:
  Bench(const Registry& registry, const ArchitectureBench& args) : args_(args) {
    const auto& known = architectures();
    const auto found = known.find(args.name);
    std::vector<std::string> names;
    for (const auto& [name, _] : known) names.push_back(name);
    if (found == known.end())
      throw ConfigError(
          fmt::format("--arch: unknown architecture '{}'; there are {}{}", args.name, fmt::join(names, ", "), hint(args.name, names)));
    Value root = parse_yaml(found->second, args.name + ".yaml");
    args.overrides.apply(root);
    read_config(registry, root, a_);
    const Compute compute = resolve_compute(a_.compute);
    if (!compute.device.is_cpu())
      throw ConfigError(fmt::format("--device {}: architectures are measured on the CPU; bench a configuration", compute.device.str()));
    type_ = compute.dtype, int8_ = compute.int8;
    if (int8_ && a_.inception) throw ConfigError("--precision int8: inception is computed in fp32 and bf16");
    if (args.batch > 0) a_.batch = args.batch;
    a_.inception ? add_inception() : add_network();
    if (int8_) return;  // of the network alone
    if (a_.text) add_text_encoder();
    if (!a_.autoencoder.weightless()) add_decoder();
    if (a_.train) add_training();
  }

  void run() {
    const nn::Isa own = nn::isa();
    if (args_.peak) print_peaks(peaks_ = measure_peaks());
    brume_.resize(parts_.size()), other_.resize(parts_.size());
    for (int64_t round = 0; round < args_.rounds; ++round)  // in turn, so that a machine that slows down slows all
      for (size_t i = 0; i < parts_.size(); ++i) {
        show_stage(fmt::format("round {} of {}: {}", round + 1, args_.rounds, parts_[i].name));
        measure(parts_[i].run, own, args_.seconds, brume_[i]);
        measure(parts_[i].baseline, int8_ ? own : nn::Isa::reference, args_.seconds, other_[i]);
      }
    if (args_.errors) measure_errors(own);
    nn::set_isa(own);
    show_stage("");
  }

  void print() const {
    fmt::print("{}, {}, {} ({:.1f} M parameters)\n", args_.name,
               int8_                    ? "int8"
               : type_ == at::kBFloat16 ? "bf16"
                                        : "fp32",
               nn::isa_name(nn::isa()), double(parameters_) / 1e6);
    fmt::print("{:<28} {:>10} {:>12} {:>9} {:>9}   {:>12} {:>9} {:>7}\n", "", "s", "", "GFLOP/s", "peak MiB",
               int8_ ? "fp32: s" : "LibTorch: s", "peak MiB", "ratio");
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Part& p = parts_[i];
      const double own = median(brume_[i].seconds), other = median(other_[i].seconds);
      fmt::print("{:<28} {:>10.4f} {:>12} {:>9.0f} {:>9.0f}   {:>12.4f} {:>9.0f} {:>6.2f}x\n", p.name, own,
                 fmt::format("{:.2f} {}", p.per_call / own, p.unit), brume_[i].flops() / own / 1e9, brume_[i].peak_mib, other,
                 other_[i].peak_mib, other / own);
    }
    for (size_t i = 0; i < errors_.size(); ++i)
      if (parts_[i].exact)
        fmt::print("{}{:<28} {:>9.3f} % from LibTorch's operations in float32 (L2, relative)\n", i ? "" : "\n", parts_[i].name,
                   100 * errors_[i]);
    for (size_t i = 0; (args_.profile || args_.peak) && i < parts_.size(); ++i) print_operations(i);
  }

  void write_json() const {
    nlohmann::ordered_json out = nlohmann::ordered_json::array();
    for (size_t i = 0; i < parts_.size(); ++i) {
      nlohmann::ordered_json operations = nlohmann::ordered_json::object();
      for (const auto& [name, row] : brume_[i].operations)
        operations[name] = {{"seconds", row.seconds}, {"flops", row.flops}, {"calls", row.calls}};
      out.push_back({{"part", parts_[i].name},
                     {"seconds", median(brume_[i].seconds)},
                     {"peak_mib", brume_[i].peak_mib},
                     {"taken_mib_a_call", brume_[i].taken_mib},
                     {int8_ ? "fp32_seconds" : "libtorch_seconds", median(other_[i].seconds)},
                     {"operations", operations}});
      if (i < errors_.size() && parts_[i].exact) out.back()["error"] = errors_[i];
    }
    append_peaks(out, peaks_);
    write_file(args_.json, out.dump(1) + "\n");
  }

 private:
  void measure_errors(nn::Isa own) {
    for (const Part& p : parts_) {
      if (!p.exact) continue;
      show_stage("in float32: " + p.name);
      nn::set_isa(own);
      const Tensor rounded = p.run().to(at::kFloat);
      nn::set_isa(nn::Isa::reference);
      const Tensor exact = p.exact();
      errors_.push_back(((rounded - exact).norm() / exact.norm()).item<double>());
      if (interrupted.load()) throw Interrupted();
    }
  }

  std::shared_ptr<Network> make_network() const {
    const int64_t out = a_.out_channels > 0 ? a_.out_channels : a_.input.shape.channels;
    return a_.network.make({.input = a_.input.shape,
                            .out_channels = out,
                            .classes = a_.classes,
                            .seed = 1,
                            .context_width = a_.tokens ? a_.tokens->width : 0,
                            .vector_width = a_.vector_width});
  }

  /// `make` gives the evaluation in a type, always of the same weights.
  void add(const std::string& name, const std::string& unit, double per_call,
           const std::function<std::function<Tensor()>(at::ScalarType)>& make) {
    const auto call = make(type_);
    parts_.push_back({name, unit, per_call, call, call, [make] { return make(at::kFloat)(); }});
  }

  void add_network() {
    add(fmt::format("network, batch {}", a_.batch), "images/s", double(a_.batch), [this](at::ScalarType type) -> std::function<Tensor()> {
      const auto network = make_network();
      if (!network_) network_ = network;
      parameters_ = 0;
      for (const Weight& w : network->weights()) parameters_ += w.tensor.numel();
      freeze(network->weights(), type);
      const auto inputs = std::make_shared<Inputs>(a_, a_.batch, type);
      return [network, inputs] {
        const at::NoGradGuard no_grad;
        return network->forward(inputs->x, inputs->c_noise, inputs->condition, nullptr);
      };
    });
    if (!int8_) return;
    const auto layers = std::make_shared<nn::Int8Layers>();
    const int64_t in = a_.input.shape.channels;
    layers->add_inner("", network_->weights(), in, a_.out_channels > 0 ? a_.out_channels : in);
    parts_.back().run = [layers, in_float = parts_.back().run] {
      const nn::Int8Scope scope(layers.get());
      return in_float();
    };
  }

  /// Random weights, normalised so that no activation grows from layer to layer.
  void add_inception() {
    const auto weights = nn::InceptionV3::layout();
    at::Generator random = at::detail::createCPUGenerator(1);
    for (const Weight& w : weights) {
      Tensor t = w.tensor;
      parameters_ += t.numel();
      const bool ones = w.name.ends_with(".bn.weight") || w.name.ends_with(".running_var");
      if (t.dim() > 1)
        t.normal_(0, std::sqrt(2.0 * double(t.size(0)) / double(t.numel())), random);
      else
        t.fill_(ones ? 1 : 0);
    }
    const auto own = std::make_shared<nn::InceptionV3>(weights, at::kCPU);
    const auto eager = std::make_shared<EagerInception>(weights);
    const Inputs inputs(a_, a_.batch, at::kFloat);
    const Tensor contiguous = inputs.x.contiguous();
    const auto quietly = [](const auto& network, const Tensor& x) {
      return [network, x] {
        const at::NoGradGuard no_grad;
        return network(x);
      };
    };
    const auto features = [own, type = type_](const Tensor& x) { return (*own)(x.to(type)).features.to(at::kFloat); };
    const auto baseline = [eager](const Tensor& x) { return (*eager)(x); };
    parts_.push_back({fmt::format("network, batch {}", a_.batch), "images/s", double(a_.batch), quietly(features, contiguous),
                      quietly(baseline, contiguous), quietly(baseline, contiguous)});
  }

  void add_text_encoder() {
    add("text encoder, 1 prompt", "prompts/s", 1, [this](at::ScalarType type) -> std::function<Tensor()> {
      nn::TextEncoderOptions o = a_.text->o;
      o.length = a_.tokens->length, o.width = a_.tokens->width;
      const nn::Builder build(2);
      const auto encoder = std::make_shared<nn::TextEncoder>(build, o);
      freeze(build.weights(), type);
      at::Generator random = at::detail::createCPUGenerator(2);
      const Tensor ids = at::randint(o.rows, {1, o.length}, random, at::kLong);
      return [encoder, ids, type] {
        const at::NoGradGuard no_grad;
        return (*encoder)(ids, {.causal = true}, type);
      };
    });
  }

  void add_decoder() {
    const ImageShape image = a_.image.shape;
    add(fmt::format("decoder, {}x{}", image.height, image.width), "images/s", 1,
        [this, image](at::ScalarType type) -> std::function<Tensor()> {
          const auto autoencoder = a_.autoencoder.make({.image = image, .seed = 3, .dtype = type});
          freeze(autoencoder->weights(), type);
          const ImageShape z = autoencoder->latent(image);
          at::Generator random = at::detail::createCPUGenerator(3);
          const Tensor latent = at::randn({1, z.channels, z.height, z.width}, random, at::TensorOptions().dtype(at::kFloat));
          return [autoencoder, latent] {
            const at::NoGradGuard no_grad;
            return autoencoder->decode(latent);
          };
        });
  }

  /// Loss, gradients and Adam's update; LibTorch's in float32 and on weights as its own modules keep them.
  void add_training() {
    const auto learner = [&](at::ScalarType type, bool contiguous) -> std::function<Tensor()> {
      const auto network = make_network();
      for (const Weight& w : network->weights()) {
        if (contiguous) Tensor(w.tensor).set_data(w.tensor.contiguous());
        if (w.trainable) Tensor(w.tensor).set_requires_grad(true);
      }
      const auto adam =
          std::make_shared<Adam>(Optimizer::Context{.weights = network->weights()}, LearningRate{.lr = 1e-4, .clip = 0}, AdamOptions());
      const auto inputs = std::make_shared<Inputs>(a_, a_.batch, type);
      const auto random = std::make_shared<at::Generator>(at::detail::createCPUGenerator(4));
      return [network, adam, inputs, random] {
        const at::AutoGradMode with_grad(true);
        const Tensor out = network->forward(inputs->x, inputs->c_noise, inputs->condition, random.get()).to(at::kFloat);
        (out * out).mean().backward();
        adam->update(0);
        return out.detach();
      };
    };
    parts_.push_back({fmt::format("training, batch {}", a_.batch), "images/s", double(a_.batch), learner(type_, false),
                      learner(at::kFloat, true), nullptr});
  }

  void print_operations(size_t i) const {
    fmt::print("\n{}\n", parts_[i].name);
    const double total = brume_[i].seconds.back();
    std::vector<std::pair<std::string, nn::OpProfile::Row>> rows(brume_[i].operations.begin(), brume_[i].operations.end());
    std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
    nn::OpProfile::Row rest;
    rest.seconds = total;
    for (const auto& [_, row] : rows) rest.seconds -= row.seconds;
    rows.emplace_back("(the rest)", rest);
    for (const auto& [name, row] : rows) {
      const double rate = row.flops / std::max(row.seconds, 1e-12) / 1e9;
      fmt::print("  {:<30} {:>9.4f} s {:>5.1f}% {:>6} calls {:>7.0f} GFLOP/s{}\n", name, row.seconds, 100 * row.seconds / total, row.calls,
                 rate,
                 share_of_peak(peaks_,
                               int8_                    ? "int8"
                               : type_ == at::kBFloat16 ? "bf16"
                                                        : "float32",
                               rate));
    }
    fmt::print("  memory taken from the system by a call, after the first: {:.1f} MiB\n", brume_[i].taken_mib);
  }

  ArchitectureBench args_;
  std::vector<Peak> peaks_;
  Architecture a_;
  at::ScalarType type_ = at::kFloat;
  bool int8_ = false;
  int64_t parameters_ = 0;
  std::shared_ptr<const Network> network_;  ///< the one that is measured
  std::vector<double> errors_;              ///< of the first parts, which are those that can be compared
  std::vector<Part> parts_;
  std::vector<Measured> brume_;
  std::vector<Measured> other_;  ///< LibTorch's operations; in int8 brume's own float32
};

}  // namespace

int bench_architecture(const Program& program, const ArchitectureBench& args) {
  Bench bench(program.registry, args);
  bench.run();
  bench.print();
  if (!args.json.empty()) bench.write_json();
  return 0;
}

}  // namespace brume::tools
