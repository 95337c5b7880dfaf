// brume bench CONFIG: how fast a configuration trains and samples, compared with the same network on LibTorch's own operations.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/rand.h>
#include <ATen/record_function.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/bench_architecture.h"
#include "bench/measuring.h"
#include "bench/peaks.h"
#include "brume/config/counted.h"
#include "brume/config/suggest.h"
#include "brume/config/yaml.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/files/atomic_file.h"
#include "brume/nn/ops/isa.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/nn/ops/op_profile.h"
#include "brume/train/ema.h"
#include "brume/train/options.h"
#include "program/outputs.h"
#include "program/program.h"

namespace brume::tools {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

/// Wall time by LibTorch operator, without the operators it calls, of the thread that asks. brume's own kernels appear under
/// the autograd function or the operator they stand in for, or as "(outside)".
class OperatorTimer {
 public:
  OperatorTimer() {
    times().clear();
    stack().clear();
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&begin, &end).scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION}));
  }
  ~OperatorTimer() { at::removeCallback(handle_); }

  /// Seconds in operators whose name contains `word`.
  static double matching(std::string_view word) {
    double sum = 0;
    for (const auto& [name, seconds] : times())
      if (name.find(word) != std::string::npos) sum += seconds;
    return sum;
  }
  static std::map<std::string, double>& times() {
    static std::map<std::string, double> t;
    return t;
  }

 private:
  struct Open {
    std::string name;
    Clock::time_point start;
    double inner = 0;
  };
  static std::vector<Open>& stack() {
    static std::vector<Open> s;
    return s;
  }
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& f) {
    stack().push_back({f.name(), Clock::now()});
    return nullptr;
  }
  static void end(const at::RecordFunction&, at::ObserverContext*) {
    if (stack().empty()) return;
    const Open done = stack().back();
    stack().pop_back();
    const double seconds = since(done.start);
    times()[done.name] += seconds - done.inner;
    if (!stack().empty()) stack().back().inner += seconds;
  }
  at::CallbackHandle handle_;
};

/// The operators that take the most time, one per line.
void print_profile(const std::string& title, double total) {
  std::vector<std::pair<double, std::string>> rows;
  double inside = 0;
  for (const auto& [name, seconds] : OperatorTimer::times()) rows.emplace_back(seconds, name), inside += seconds;
  rows.emplace_back(total - inside, "(outside operators)");
  std::sort(rows.rbegin(), rows.rend());
  fmt::print("\n{}\n", title);
  for (size_t i = 0; i < std::min<size_t>(20, rows.size()); ++i)
    fmt::print("  {:>5.1f}%  {}\n", 100 * rows[i].first / total, rows[i].second);
}

struct Arguments {
  std::string config, architecture, json;
  std::vector<std::string> precisions{"fp32", "bf16"};
  double seconds = 6;
  bool profile = false, errors = false, peak = false;
  int64_t rounds = 3, batch = 0, sample_batch = 16;
  Overrides overrides;
};

struct Speeds {
  std::string name;
  double train_rate = 0, train_gflops = 0, train_convolution = 0, sample_rate = 0, call_ms = 0, sample_gflops = 0, sample_convolution = 0,
         memory = 0;
};

/// One way of running the same configuration.
struct Variant {
  Speeds result;
  nn::Isa isa;
  std::unique_ptr<ModelFiles> models;  ///< of the first stage, at this precision
  std::unique_ptr<Pipeline> pipeline, frozen;
  std::unique_ptr<Ema> ema;
  std::shared_ptr<Optimizer> optimizer;
  Training training;
  int64_t step = 0;
  std::vector<double> train_rates, sample_rates, call_times;
};

Variant make_variant(const Config& config, const Registry& registry, const std::filesystem::path& folder, const std::string& name,
                     bool reference) {
  Variant v;
  v.result.name = reference ? "LibTorch " + name : "brume " + name;
  v.isa = reference ? nn::Isa::reference : nn::isa();
  ComputeOptions compute = config.compute;
  compute.precision = name == "bf16" ? Precision::bf16 : name == "int8" ? Precision::int8 : Precision::fp32;
  const Compute c = resolve_compute(compute);
  v.models = std::make_unique<ModelFiles>(registry, c, folder);
  v.pipeline = std::make_unique<Pipeline>(config.model, c, 1, nullptr, *v.models);
  v.frozen = std::make_unique<Pipeline>(config.model, c, 1, nullptr, *v.models);
  v.frozen->freeze();
  if (reference)  // as torch::nn modules keep them; brume's are channels last
    for (const auto* p : {v.pipeline.get(), v.frozen.get()})
      for (Weight& w : p->weights()) w.tensor.set_data(w.tensor.contiguous());
  if (!config.train || c.int8) return v;
  std::vector<Weight> learned;
  for (Weight& w : v.pipeline->weights())
    if (w.trainable) learned.push_back(w), w.tensor.set_requires_grad(true);
  v.ema = std::make_unique<Ema>(v.pipeline->weights(), config.train->ema);
  v.optimizer = config.train->optimizer.make({learned, config.train->steps});
  v.training = {0, config.train->steps, config.train->objective->memory(*config.model.noise), v.models.get()};
  return v;
}

std::vector<Annotation> some_images(const Config& config, int64_t count) {
  std::vector<Annotation> all;
  const int64_t classes = config.model.conditioner->traits().classes;
  for (int64_t i = 0; i < count; ++i) all.push_back({classes > 0 ? i % classes : -1, ""});
  return all;
}

void train_step(const Config& config, Variant& v, const Tensor& images, const std::vector<Annotation>& annotations) {
  at::Generator random = at::detail::createCPUGenerator(uint64_t(v.step));
  const at::AutoGradMode with_grad(true);
  v.training.step = v.step;
  v.pipeline->loss(*config.train->objective, {images, annotations}, v.training, random).backward();
  v.optimizer->update(v.step);
  v.ema->update(v.step++);
}

double convolutions(const nn::OpProfile& operations) {
  double seconds = 0;
  for (const auto& [name, row] : operations.rows())
    if (name.starts_with("conv2d")) seconds += row.seconds;
  return seconds;
}

void measure_training(const Config& config, Variant& v, int64_t batch, double seconds, bool profile) {
  if (!v.optimizer) return;
  nn::set_isa(v.isa);
  const nn::MemoryPoolScope keep;
  at::Generator random = at::detail::createCPUGenerator(7);
  const ImageShape s = config.model.image;
  const Tensor images = at::rand({batch, s.channels, s.height, s.width}, random, at::TensorOptions().dtype(at::kFloat)) * 2 - 1;
  const std::vector<Annotation> annotations = some_images(config, batch);
  train_step(config, v, images, annotations);
  peak_memory(true);
  const auto start = Clock::now();
  int64_t steps = 0;
  {
    const OperatorTimer timer;
    nn::OpProfile operations;
    for (; since(start) < seconds; ++steps) train_step(config, v, images, annotations);
    const double time = since(start);
    v.train_rates.push_back(double(steps * batch) / time);
    // LibTorch's own backward pass computes twice what the forward does; brume's gradients count themselves.
    const bool library = v.isa == nn::Isa::reference;
    v.result.train_gflops = (library ? 3 : 1) * operations.flops() / time / 1e9;
    v.result.train_convolution = (library ? OperatorTimer::matching("onvolution") : convolutions(operations)) / time;
    if (profile) print_profile(v.result.name + ": training", time);
  }
  v.result.memory = std::max(v.result.memory, peak_memory());
}

void measure_sampling(const Config& config, Variant& v, int64_t batch, double seconds, bool profile) {
  nn::set_isa(v.isa);
  const nn::MemoryPoolScope keep;
  SampleRequest request;
  request.images = some_images(config, batch);
  request.batch = batch;
  request.models = v.models.get();
  SampleOptions options = config.sample;
  options.steps = std::min<int64_t>(options.steps, 5);
  sample_images(*v.frozen, request, options);
  peak_memory(true);
  const auto start = Clock::now();
  int64_t calls = 0;
  std::optional<OperatorTimer> timer;
  if (profile) timer.emplace();
  nn::OpProfile operations;
  for (; since(start) < seconds; calls += options.steps) sample_images(*v.frozen, request, options);
  const double time = since(start);
  v.call_times.push_back(1e3 * time / double(calls));
  v.sample_rates.push_back(double(batch) * double(calls) / time / double(config.sample.steps));
  v.result.sample_gflops = operations.flops() / time / 1e9;
  v.result.sample_convolution = convolutions(operations) / time;
  if (profile) print_profile(v.result.name + ": sampling", time);
  v.result.memory = std::max(v.result.memory, peak_memory());
}

void print_table(const std::vector<Speeds>& rows, int64_t batch, int64_t sample_batch, int64_t steps) {
  fmt::print("{:<14} {:>34}   {:>44} {:>10}\n", "", fmt::format("training, batch {}", batch),
             fmt::format("sampling, batch {}, {}", sample_batch, counted(steps, "step")), "");
  fmt::print("{:<14} {:>10} {:>8} {:>8} {:>5}   {:>10} {:>8} {:>10} {:>8} {:>5} {:>10}\n", "", "images/s", "ratio", "GFLOP/s", "conv",
             "images/s", "ratio", "ms/call", "GFLOP/s", "conv", "peak MiB");
  const Speeds& base = rows.front();
  for (const Speeds& m : rows)
    fmt::print("{:<14} {:>10.1f} {:>7.2f}x {:>8.0f} {:>4.0f}%   {:>10.2f} {:>7.2f}x {:>10.2f} {:>8.0f} {:>4.0f}% {:>10.0f}\n", m.name,
               m.train_rate, m.train_rate / base.train_rate, m.train_gflops, 100 * m.train_convolution, m.sample_rate,
               m.sample_rate / base.sample_rate, m.call_ms, m.sample_gflops, 100 * m.sample_convolution, m.memory);
}

/// Writes nothing if the path is empty.
void write_json(const std::string& path, const std::vector<Speeds>& rows, const std::vector<Peak>& peaks) {
  if (path.empty()) return;
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Speeds& m : rows)
    out.push_back({{"name", m.name},
                   {"train_images_per_second", m.train_rate},
                   {"train_gflops", m.train_gflops},
                   {"train_convolution_share", m.train_convolution},
                   {"sample_images_per_second", m.sample_rate},
                   {"ms_per_call", m.call_ms},
                   {"sample_gflops", m.sample_gflops},
                   {"sample_convolution_share", m.sample_convolution},
                   {"peak_mib", m.memory}});
  append_peaks(out, peaks);
  write_file(path, out.dump(1) + "\n");
}

/// The peaks alone, with the number of threads that networks are computed with by default.
int bench_peaks(const std::string& json) {
  resolve_compute({});
  const std::vector<Peak> peaks = measure_peaks();
  print_peaks(peaks);
  write_json(json, {}, peaks);
  return 0;
}

int bench(Program& program, const Arguments& a) {
  if (!a.config.empty() && !a.architecture.empty()) throw ConfigError("bench takes a configuration or --arch NAME, not both");
  const bool alone = a.config.empty() && a.architecture.empty();
  if (alone && !a.peak) throw ConfigError("bench needs a configuration, --arch NAME or --peak");
  check_file("--json", a.json);
  catch_interrupt();
  if (alone) return bench_peaks(a.json);
  if (!a.architecture.empty())
    return bench_architecture(program, {a.architecture, a.json, a.rounds, a.batch, a.seconds, a.profile, a.errors, a.peak, a.overrides});
  Value root = load_yaml(a.config);
  a.overrides.apply(root);
  const Config config = read_configuration(program.registry, root);
  for (const std::string& p : a.precisions)
    if (p != "fp32" && p != "bf16" && p != "int8")
      throw ConfigError(fmt::format("--precisions: unknown precision '{}'{}", p, hint(p, {"fp32", "bf16", "int8"})));
  if (const std::string warning = blas_warning(); !warning.empty()) print_warning(warning);
  const int64_t batch = a.batch > 0 ? a.batch : config.train ? config.train->batch : 1;
  const std::filesystem::path folder = std::filesystem::path(a.config).parent_path();
  std::vector<Variant> variants;
  variants.push_back(make_variant(config, program.registry, folder, "fp32", true));
  for (const std::string& p : a.precisions) variants.push_back(make_variant(config, program.registry, folder, p, false));
  const std::vector<Peak> peaks = a.peak ? measure_peaks() : std::vector<Peak>();
  if (a.peak) print_peaks(peaks);
  for (int64_t round = 0; round < a.rounds; ++round)  // in turn, so that a machine that slows down slows all
    for (Variant& v : variants) {
      show_stage(fmt::format("round {} of {}: {}", round + 1, a.rounds, v.result.name));
      measure_training(config, v, batch, a.seconds, a.profile && round == 0);
      measure_sampling(config, v, a.sample_batch, a.seconds / 2, a.profile && round == 0);
      if (interrupted.load()) throw Interrupted();
    }
  show_stage("");
  std::vector<Speeds> rows;
  for (Variant& v : variants) {
    v.result.train_rate = median(v.train_rates), v.result.sample_rate = median(v.sample_rates), v.result.call_ms = median(v.call_times);
    rows.push_back(v.result);
  }
  print_table(rows, batch, a.sample_batch, config.sample.steps);
  write_json(a.json, rows, peaks);
  return 0;
}

}  // namespace

void add_bench(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand(
      "bench", "measures how fast a configuration trains and samples, compared with LibTorch's own operations in float32");
  auto a = std::make_shared<Arguments>();
  command.add_option("config", a->config, "a YAML file").type_name("CONFIG");
  CommandOption arch = command
                           .add_option("--arch", a->architecture,
                                       "measures the parts of a well-known architecture with random weights, instead of a configuration")
                           .type_name("NAME");
  command.add_option("--precisions", a->precisions, "what to measure of a configuration: fp32, bf16 and int8, which does not train")
      .delimiter(',')
      .capture_default_str()
      .excludes(arch);
  command.add_option("--seconds", a->seconds, "of training per round and variant").capture_default_str().check(between(0.1, 3600.0));
  command.add_option("--rounds", a->rounds, "of which the median is shown").capture_default_str().check(between(1, 1000));
  command.add_option("--batch", a->batch, "images per training step; the configuration's if not given").check(between(1, 65536));
  command.add_option("--sample-batch", a->sample_batch, "images sampled at once")
      .capture_default_str()
      .check(between(1, 65536))
      .excludes(arch);
  command.add_flag("--profile", a->profile, "the operators that take the most time; of an architecture, brume's own operations");
  command.add_flag("--errors", a->errors, "how far each part of an architecture is from LibTorch's operations in float32").needs(arch);
  command.add_flag("--peak", a->peak,
                   "first what the processor computes at most in float32, bf16 and int8, and how fast it reads memory; with --arch, each "
                   "operation as a share of it");
  command.add_option("--json", a->json, "writes the figures to a file as well").type_name("FILE");
  a->overrides.add_to(command);
  command.callback([&program, &code, a] { code = bench(program, *a); });
}

}  // namespace brume::tools
