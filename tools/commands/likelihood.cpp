// brume likelihood CHECKPOINT --data DATA
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/likelihood.h"
#include "brume/diffusion/pipeline.h"
#include "brume/files/atomic_file.h"
#include "brume/train/class_scores.h"
#include "commands/open_data.h"
#include "program/outputs.h"
#include "program/processes.h"
#include "program/progress.h"
#include "sampling/arguments.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string source, data, method = "vlb", variance = "small", probe = "rademacher", json;
  Overrides overrides;
  int64_t count = 100, batch = 16, steps = 0, probes = 1;
  double rtol = 1e-5, atol = 1e-5;
  bool no_clip = false, no_dequantise = false;
  uint64_t seed = 0;
  Rendezvous job;
};

/// What was found, one number per image.
struct Found {
  std::vector<double> bits;
  Tensor prior, terms;      ///< of the bound
  int64_t evaluations = 0;  ///< of the network, an image, by the ODE
};

double mean(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x;
  return sum / double(v.size());
}

double standard_error(const std::vector<double>& v) {
  double squares = 0;
  for (const double x : v) squares += (x - mean(v)) * (x - mean(v));
  return v.size() > 1 ? std::sqrt(squares / double(v.size() - 1) / double(v.size())) : std::nan("");
}

/// Calls take(images, annotations, number of the first) over this process's part of the data, batch by batch. Throws ConfigError if an
/// image is left out, and the numbers of those after it would depend on the number of processes.
template <class F>
void over_images(const Arguments& a, const Dataset& data, const ImageShape& shape, const World& world, const F& take) {
  const NumberRange part = world.part(count_of(data, a.count));
  int64_t first = part.begin;
  for_each_batch(data, shape, a.batch, part, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
    take(images, annotations, first);
    first += images.size(0);
    return true;
  });
  if (world.size() > 1 && first != part.end)
    throw ConfigError(
        fmt::format("--data: {} cannot be read, and {} number those after them in another way than one; "
                    "remove them, or start one process",
                    counted(part.end - first, "image"), counted(world.size(), "process")));
}

Found by_bound(const Arguments& a, const Pipeline& model, const Dataset& data, World& world) {
  const ModelOptions& m = model.options();
  const int64_t steps = m.noise->timesteps() == 0 && a.steps == 0 ? 1000 : a.steps;
  const AncestralChain chain = training_chain(*m.noise, steps);
  const BoundOptions options{step_variance(m.variance, a.variance == "large" ? StepVariance::large : StepVariance::small), !a.no_clip};
  const NumberRange part = world.part(count_of(data, a.count));
  Progress progress("likelihood", part.count() * int64_t(chain.size()), "image steps");
  const auto denoiser = model.denoiser();
  std::vector<Tensor> priors, terms;
  over_images(a, data, m.image, world, [&](const Tensor& images, const std::vector<Annotation>& annotations, int64_t first) {
    const auto noise = per_image_noise(a.seed, first);
    const int64_t n = images.size(0);
    const VariationalBound b = variational_bound(*denoiser, images.to(model.compute().device), model.condition(annotations), chain,
                                                 m.noise->start_std(chain.sigma(chain.size() - 1)), options, *noise, [&](int64_t done) {
                                                   progress.update((first - part.begin) * int64_t(chain.size()) + n * done, double(n));
                                                   return !interrupted.load();
                                                 });
    priors.push_back(b.prior.to(at::kCPU, at::kDouble));
    terms.push_back(b.terms.to(at::kCPU, at::kDouble));
  });
  progress.finish();
  Found found{{}, world.all_gather_rows(at::cat(priors)), world.all_gather_rows(at::cat(terms)), 0};
  const Tensor total = (found.prior + found.terms.sum(1)).contiguous();
  found.bits.assign(total.data_ptr<double>(), total.data_ptr<double>() + total.numel());
  return found;
}

Found by_ode(const Arguments& a, const Pipeline& model, const Dataset& data, World& world) {
  const ModelOptions& m = model.options();
  OdeOptions options;
  options.solver.rtol = a.rtol;
  options.solver.atol = a.atol;
  options.probes = a.probes;
  options.probe = a.probe == "gaussian" ? OdeOptions::Probe::gaussian : OdeOptions::Probe::rademacher;
  const NumberRange part = world.part(count_of(data, a.count));
  Progress progress("likelihood", part.count(), "images");
  const auto denoiser = model.denoiser();
  Found found;
  over_images(a, data, m.image, world, [&](const Tensor& images, const std::vector<Annotation>& annotations, int64_t first) {
    const Tensor x = a.no_dequantise ? images : dequantized(images, a.seed, first);
    const Condition condition = model.condition(annotations);
    for (int64_t i = 0; i < x.size(0); ++i) {  // one by one: the solver's steps are each image's own
      if (interrupted.load()) throw Interrupted();
      const auto noise = per_image_noise(a.seed, first + i);
      const OdeLikelihood l =
          ode_likelihood(*denoiser, x.narrow(0, i, 1).to(model.compute().device), condition.slice(i, 1), *m.noise, options, *noise);
      found.bits.push_back(bits_per_dim(l.log_p, m.image.numel()));
      found.evaluations += l.evaluations;
      progress.update(first - part.begin + i + 1, 1, fmt::format("{:.3f} bits/dim", mean(found.bits)));
    }
  });
  progress.finish();
  const Tensor bits = world.all_gather_rows(at::tensor(found.bits, at::kDouble)).contiguous(), calls = at::tensor({found.evaluations});
  world.all_reduce(calls);
  found.bits.assign(bits.data_ptr<double>(), bits.data_ptr<double>() + bits.numel());
  found.evaluations = calls.item<int64_t>() / bits.numel();
  return found;
}

void print(const Arguments& a, const Found& f) {
  const size_t count = f.bits.size();
  fmt::print("{}: {:.4f}{} bits/dim on {} image{} ({})\n", a.source, mean(f.bits),
             count > 1 ? fmt::format(" ± {:.4f}", standard_error(f.bits)) : "", count, count > 1 ? "s" : "",
             a.method == "vlb" ? "variational bound" : "probability-flow ODE");
  if (a.method == "ode") return fmt::print("  {} network calls per image, rtol {}, atol {}\n", f.evaluations, a.rtol, a.atol);
  const Tensor terms = f.terms.mean(0);
  const int64_t n = terms.size(0);
  fmt::print("  prior {:.6f}, {} {:.4f}, decoder {:.4f}\n", f.prior.mean().item<double>(), counted(n - 1, "step"),
             terms.narrow(0, 1, n - 1).sum().item<double>(), terms[0].item<double>());
}

void write_json(const Arguments& a, const Found& f) {
  if (a.json.empty()) return;
  nlohmann::ordered_json j{{"model", a.source},  {"method", a.method},           {"images", f.bits.size()},
                           {"seed", a.seed},     {"bits_per_dim", mean(f.bits)}, {"standard_error", standard_error(f.bits)},
                           {"per_image", f.bits}};
  if (a.method == "vlb") {
    const Tensor terms = f.terms.mean(0).contiguous();
    j["prior"] = f.prior.mean().item<double>();
    j["terms"] = std::vector<double>(terms.data_ptr<double>(), terms.data_ptr<double>() + terms.numel());
  } else {
    j["rtol"] = a.rtol;
    j["atol"] = a.atol;
    j["probes"] = a.probes;
    j["evaluations"] = f.evaluations;
  }
  write_file(a.json, j.dump(1) + "\n");
}

int likelihood(Program& program, const Arguments& a, World& world) {
  check_file("--json", a.json);
  SampleArguments of_model;
  of_model.source = a.source;
  of_model.overrides = a.overrides;
  const Model opened = open_measured(program.registry, of_model);
  const Pipeline& model = opened.pipeline();
  if (!model.options().autoencoder.neutral())
    throw ConfigError(fmt::format("{}: works on the latents of an autoencoder ({}), and the likelihood of its images is not known",
                                  a.source, model.options().autoencoder.type()));
  const auto data =
      with_classes(open_data(program, "--data", a.data, model.options().image), "--data", {model.options().class_names, "the model"});
  catch_interrupt();
  if (const int64_t count = count_of(*data, a.count); count < world.size())
    throw ConfigError(fmt::format("{} cannot be divided among {}", counted(count, "image"), counted(world.size(), "process")));
  const Found found = a.method == "vlb" ? by_bound(a, model, *data, world) : by_ode(a, model, *data, world);
  if (!world.leads()) return 0;
  print(a, found);
  write_json(a, found);
  return 0;
}

}  // namespace

void add_likelihood(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("likelihood", "computes bits per dimension of images under a model");
  auto a = std::make_shared<Arguments>();
  command.add_option("source", a->source, "model.safetensors, or a YAML file").required().type_name("CHECKPOINT");
  command.add_option("--data", a->data, "the images: {type: idx, images: ...}, or a YAML file of it or of a configuration")
      .required()
      .type_name("DATA");
  command.add_option("--method", a->method, "vlb = the variational bound, ode = the probability-flow ODE")
      .capture_default_str()
      .check(one_of({"vlb", "ode"}));
  const auto positive = between(1, 100000000);
  command.add_option("-n,--count", a->count, "images, the first of the data").capture_default_str().check(positive);
  command.add_option("--batch", a->batch, "images at once").capture_default_str().check(positive);
  add_seed(command, a->seed);
  command.add_option("--steps", a->steps, "vlb: steps of the bound; 0 = every training time").check(between(0, 1000000));
  command.add_option("--variance", a->variance, "vlb: small or large, if the model learned none")
      .capture_default_str()
      .check(one_of({"small", "large"}));
  command.add_flag("--no-clip", a->no_clip, "vlb: leave the estimates of x0 outside [-1, 1] as they are");
  command.add_option("--rtol", a->rtol, "ode: relative tolerance of the solver").capture_default_str().check(positive_number());
  command.add_option("--atol", a->atol, "ode: absolute tolerance of the solver").capture_default_str().check(positive_number());
  command.add_option("--probes", a->probes, "ode: of Hutchinson's estimate of the trace").capture_default_str().check(positive);
  command.add_option("--probe", a->probe, "ode: rademacher or gaussian").capture_default_str().check(one_of({"rademacher", "gaussian"}));
  command.add_flag("--no-dequantise", a->no_dequantise, "ode: add no noise to the images, which do not have 8 bits");
  command.add_option("--json", a->json, "writes the figures to a file as well").type_name("FILE");
  a->overrides.add_to(command);
  add_rendezvous(command, a->job);
  command.callback(
      [&program, &code, a] { code = in_job(a->job, a->overrides.threads, [&](World& world) { return likelihood(program, *a, world); }); });
}

}  // namespace brume::tools
