// brume evaluate CLASSIFIER --real DATA, brume evaluate AUTOENCODER --data DATA, brume evaluate MODEL --features FEATURES --real DATA,
// brume evaluate MODEL --metric METRIC, brume evaluate --images DIR --metric METRIC,
// brume evaluate MODEL --control FILE --control-image PREPROCESSOR --data DATA.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/yaml.h"
#include "brume/core/features.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/files/atomic_file.h"
#include "brume/train/evaluation.h"
#include "commands/evaluate_autoencoder.h"
#include "commands/evaluate_control.h"
#include "commands/evaluate_metric.h"
#include "commands/evaluate_sets.h"
#include "commands/evaluation_file.h"
#include "commands/open_data.h"
#include "commands/open_features.h"
#include "program/outputs.h"
#include "program/processes.h"
#include "program/progress.h"
#include "sampling/arguments.h"
#include "sampling/piece.h"
#include "sampling/sampling_grid.h"

namespace brume::tools {
namespace {

constexpr int64_t of_endless = 10000;  ///< images of an endless set, if no limit is given

struct Arguments {
  std::string source, features, classifier, images, shape, real, baseline, json, metric, data, captions, samplers;
  std::vector<std::string> compare;
  SamplingGrid grid;
  SampleArguments settings;
  int64_t count = 1000, batch = 64, limit = 0, bits = 8;
  uint64_t seed = 0;
  Rendezvous job;
};

/// One line of the report.
struct Row {
  std::string name;
  SetFigures figures;
  int64_t steps = 0;  ///< 0 = no samples
  int64_t calls = 0;  ///< 0 = not counted
};

FeatureSet features_of(const Features& extractor, const std::shared_ptr<const Dataset>& data, const ImageShape& image,
                       const std::string& option, const ClassList& classes, int64_t limit, World& world) {
  const int64_t count = limit > 0 || data->size() > 0 ? limit : of_endless;
  std::optional<Progress> progress;
  const auto moved = [&](int64_t done, int64_t all) {
    if (!progress) progress.emplace(option.substr(2) + " images", all, "images");
    progress->update(done, std::min<double>(256, double(done)));
    return !interrupted.load();
  };
  return data_features(extractor, *with_classes(data, option, classes), image, option, count, moved, world);
}

std::string percent(double share) { return std::isnan(share) ? "-" : fmt::format("{:.2f} %", 100 * share); }
std::string number(double value) { return std::isnan(value) ? "-" : fmt::format("{:.4f}", value); }

/// Returns the class that varies least, relative to the real one; NaN if no class is known.
double least_ratio(const SetFigures& set, const SetFigures& real) {
  double least = std::nan("");
  for (size_t c = 0; c < set.spread_by_class.size(); ++c) least = std::fmin(least, set.spread_by_class[c] / real.spread_by_class[c]);
  return least;
}

void print_table(const std::vector<Row>& rows) {
  const SetFigures& real = rows.front().figures;
  size_t width = 8;
  for (const Row& r : rows) width = std::max(width, r.name.size());
  fmt::print("{:<{}} {:>8} {:>10} {:>18} {:>18} {:>9} {:>12}\n", "", width, "images", "accuracy", "Fréchet distance", "spread in a class",
             "of real", "least class");
  for (const Row& r : rows) {
    const SetFigures& f = r.figures;
    fmt::print("{:<{}} {:>8} {:>10} {:>18} {:>18} {:>9} {:>12}\n", r.name, width, f.images, percent(f.accuracy), number(f.frechet),
               number(f.spread), percent(f.spread / real.spread), percent(least_ratio(f, real)));
  }
}

nlohmann::ordered_json json_of(const Row& row, const SetFigures& real) {
  const SetFigures& f = row.figures;
  nlohmann::ordered_json json{{"name", row.name},
                              {"images", f.images},
                              {"accuracy", f.accuracy},
                              {"frechet_distance", f.frechet},
                              {"spread", f.spread},
                              {"spread_of_real", f.spread / real.spread},
                              {"spread_by_class", f.spread_by_class}};
  if (row.steps > 0) json["steps"] = row.steps;
  if (row.calls > 0) json["calls"] = row.calls;
  return json;
}

void write_json(const Arguments& a, const std::vector<Row>& rows, nlohmann::ordered_json about) {
  if (a.json.empty()) return;
  about["sets"] = nlohmann::ordered_json::array();
  for (const Row& r : rows) about["sets"].push_back(json_of(r, rows.front().figures));
  write_file(a.json, about.dump(1) + "\n");
}

/// Prints the accuracy of a classifier.
int evaluate_classifier(Program& program, const Arguments& a, World& world) {
  for (const auto& [option, given] :
       {std::pair{"--baseline", !a.baseline.empty()}, std::pair{"--cfg", !a.grid.cfg.empty()}, std::pair{"--calls", !a.grid.calls.empty()}})
    if (given) throw ConfigError(fmt::format("{}: {} is a classifier, which only has an accuracy on --real", option, a.source));
  const auto classifier = open_features(program, "classifier:" + a.source, a.settings.overrides);
  const auto data = open_data(program, "--real", a.real, classifier->input());
  const ClassList classes = compared_classes(*classifier, *data, "--real");
  const FeatureSet real = features_of(*classifier, data, classifier->input(), "--real", classes, a.limit, world);
  if (!world.leads()) return 0;
  fmt::print("{}: accuracy {} on {}\n", a.source, percent(real.accuracy()), counted(real.images(), "image"));
  write_json(a, {{"real", figures(real, real)}}, {{"classifier", a.source}});
  return 0;
}

FeatureSet samples(const Arguments& a, const Features& extractor, const Model& model, const SampleOptions& options, const std::string& name,
                   const ClassList& classes, World& world) {
  Progress progress(name, world.part(a.count).count() * options.steps, "image steps");
  return sample_features(extractor, model.pipeline(), options, a.count, a.batch, a.seed, moving(progress, options.steps), model.others(),
                         classes, world);
}

int evaluate_model(Program& program, const Arguments& a, World& world) {
  if (a.features.empty())
    throw ConfigError("evaluate needs --features, an extractor such as classifier:FILE; --classifier FILE is short for it");
  const auto extractor = open_features(program, a.features, a.settings.overrides);
  const Model model = open_model(program.registry, a.settings);
  const auto runs = sampling_runs(model, request_of(a.settings, model), a.grid);
  if (world.size() > 1)
    for (const SamplingRun& run : runs) check_divisible(run.options, counted(world.size(), "process").c_str());
  const ImageShape image = images_for(*extractor, model.shape());
  const auto data = open_data(program, "--real", a.real, image);
  const ClassList classes = compared_classes(*extractor, *data, "--real");
  const FeatureSet real = features_of(*extractor, data, image, "--real", classes, a.limit, world);
  std::vector<Row> rows;
  const auto add = [&](const std::string& name, const FeatureSet& set, int64_t steps = 0, int64_t calls = 0) {
    if (world.leads()) rows.push_back({name, figures(set, real), steps, calls});
  };
  add("real", real);
  if (!a.baseline.empty()) {
    const auto baseline = open_data(program, "--baseline", a.baseline, image);
    add("baseline", features_of(*extractor, baseline, image, "--baseline", classes, a.limit, world));
  }
  for (const SamplingRun& run : runs)
    add(run.name, samples(a, *extractor, model, run.options, run.name, classes, world), run.options.steps, run.calls);
  if (!world.leads()) return 0;
  fmt::print("{}: {}, seed {}; features of {}\n", a.source, steps_of(runs), a.seed, extractor->name());
  print_table(rows);
  if (const int64_t wide = extractor->width(); a.count <= wide)
    fmt::print("note: {} samples are few for {}; their Fréchet distance is too large by much\n", a.count, counted(wide, "feature"));
  write_json(a, rows, {{"model", a.source}, {"features", extractor->name()}, {"steps", runs.front().options.steps}, {"seed", a.seed}});
  return 0;
}

int evaluate_first_stage(Program& program, const Arguments& a, const World& world) {
  if (a.data.empty()) throw ConfigError("evaluate needs --data, the images that the autoencoder is measured on");
  if (!a.real.empty() || !a.features.empty() || !a.baseline.empty() || !a.grid.cfg.empty() || !a.grid.calls.empty())
    throw ConfigError(fmt::format("{}: is an autoencoder; --real, --features, --baseline, --cfg and --calls are for models", a.source));
  if (world.size() > 1)
    throw ConfigError(
        fmt::format("{}: is an autoencoder, whose evaluation {} do not divide; start one", a.source, counted(world.size(), "process")));
  return evaluate_autoencoder(program, {a.source, a.data, a.json, a.limit, a.batch, a.bits, a.settings.overrides});
}

int evaluate(Program& program, const Arguments& a, World& world) {
  if (const std::string warning = blas_warning(); !warning.empty()) print_warning(warning);
  check_file("--json", a.json);
  catch_interrupt();
  if (!a.compare.empty()) {
    if (!a.source.empty() || !a.metric.empty() || !a.images.empty())
      throw ConfigError("--compare: prints files of earlier evaluations, and nothing is evaluated with it");
    if (world.leads()) print_table(comparable_sets(a.compare));
    return 0;
  }
  if (!a.images.empty() && !a.grid.calls.empty())
    throw ConfigError(fmt::format("--calls {}: is for samples of a model, and --images judges files", fmt::join(a.grid.calls, ",")));
  if (judges_sets(program.registry, a.metric)) {
    for (const auto& [option, given] : {std::pair{"--data", &a.data}, std::pair{"--baseline", &a.baseline}})
      if (!given->empty()) throw ConfigError(fmt::format("{}: is not for metrics of sets ({})", option, a.metric));
    return evaluate_sets(
        program,
        {a.metric, a.features, a.images, a.real, a.shape, a.captions, a.json, a.grid, a.settings, a.count, a.batch, a.limit, a.seed},
        world);
  }
  if (!a.images.empty()) throw ConfigError("--images: is for metrics of sets, such as --metric fid");
  if (a.source.empty()) throw ConfigError("evaluate needs a CHECKPOINT; or --images DIR and --metric, which judges images in files");
  if (!a.metric.empty()) {
    for (const auto& [option, given] :
         {std::pair{"--real", &a.real}, std::pair{"--baseline", &a.baseline}, std::pair{"--features", &a.features}})
      if (!given->empty()) throw ConfigError(fmt::format("{}: is for --features, and --metric judges without", option));
    return evaluate_metric(program, {a.metric, a.data, a.captions, a.json, a.grid, a.settings, a.count, a.batch, a.seed}, world);
  }
  if (!a.captions.empty()) throw ConfigError("--captions: is for --metric");
  if (!a.settings.request.controls.empty() && a.features.empty()) {
    for (const auto& [option, given] : {std::pair{"--real", &a.real}, std::pair{"--baseline", &a.baseline}})
      if (!given->empty())
        throw ConfigError(fmt::format("{}: is for --features; the images whose hints steer are those of --data", option));
    return evaluate_control(program, {a.data, a.json, a.grid, a.settings, a.count, a.batch, a.seed}, world);
  }
  const bool yaml = a.source.ends_with(".yaml") || a.source.ends_with(".yml");
  if (yaml && load_yaml(a.source).find("autoencoder"))
    throw ConfigError(fmt::format("{}: is the configuration of an autoencoder; train it, then give the run's model.safetensors", a.source));
  const std::string kind = yaml ? "model" : kind_of(a.source);
  if (kind == "autoencoder") return evaluate_first_stage(program, a, world);
  if (a.real.empty()) throw ConfigError("evaluate needs --real DATA, the real images; or --metric, which judges without");
  if (!a.data.empty()) throw ConfigError("--data: is for --metric, for --control, and for autoencoders");
  if (a.features.empty() && kind == "classifier") return evaluate_classifier(program, a, world);
  return evaluate_model(program, a, world);
}

/// Declares what is judged, and by what.
void declare_judged(Command command, Arguments& a) {
  command.add_option("source", a.source, "the model.safetensors of a model, a classifier or an autoencoder").type_name("CHECKPOINT");
  CommandOption features =
      command
          .add_option("--features", a.features,
                      "the extractor whose features are compared: inception:FILE, classifier:FILE, or {type: NAME, ...}")
          .type_name("FEATURES");
  command.add_option("--classifier", a.classifier, "short for --features classifier:FILE").type_name("FILE").excludes(features);
  command
      .add_option("--bits", a.bits,
                  "of an autoencoder: bits per value of a latent, for the comparison with JPEG; with a codebook a position counts for log2 "
                  "of its entries")
      .capture_default_str()
      .check(between(1, 64));
  command
      .add_option("--real", a.real,
                  "the real images: {type: idx, images: ..., labels: ...}, or a YAML file of it; of metrics of "
                  "sets, also a folder, or an .npz file of images or of statistics")
      .type_name("DATA");
  command
      .add_option("--metric", a.metric,
                  "metrics of sets of images, `fid,kid` or [fid, {type: kid, subsets: 50}]; or caption_accuracy, which judges each image "
                  "against its caption")
      .type_name("METRIC");
  command.add_option("--images", a.images, "with metrics of sets, instead of a model: a folder of images, an .npz file, or a data set")
      .type_name("DIR");
  command.add_option("--shape", a.shape, "with --images: channels, height and width of a data set's images, as 3x32x32").type_name("CxHxW");
  command
      .add_option("--data", a.data,
                  "the images of an autoencoder; with --metric, a data set whose captions are asked for, and whose own "
                  "images are judged as well; with --control, the images that --control-image (a preprocessor: canny) makes hints of")
      .type_name("DATA");
  command
      .add_option("--captions", a.captions,
                  "with --metric, instead of --data: the captions, one per line; those of clip_score, and those "
                  "that samples are made of")
      .type_name("FILE");
}

/// Declares the ways of sampling that are compared.
void declare_grid(Command command, Arguments& a) {
  command.add_option("--cfg", a.grid.cfg, "scales of classifier-free guidance, one run each; the checkpoint's own guidance if not given")
      .delimiter(',');
  const CommandOption steps = command.add_option("--steps", a.grid.steps, "numbers of sampling steps, one run each")
                                  .allow_extra_args(false)
                                  .delimiter(',')
                                  .check(between(1, 100000));
  command
      .add_option("--calls", a.grid.calls,
                  "instead of --steps, budgets of network calls, one run each: each sampler takes as many steps as fit, so that samplers "
                  "are compared at equal cost; with guidance a call is all that one estimate needs")
      .allow_extra_args(false)
      .delimiter(',')
      .check(between(1, 1000))
      .excludes(steps);
  command
      .add_option("--sampler", a.samplers,
                  "samplers, one run each: ddim,heun or {type: ddim, eta: 1}; with several scales, steps or calls, "
                  "one run of each combination")
      .type_name("NAMES");
}

/// Declares the samples, and what becomes of the figures.
void declare_samples(Command command, Arguments& a) {
  command.add_option("--baseline", a.baseline, "other real images, compared with --real as the samples are").type_name("DATA");
  command.add_option("-n,--count", a.count, "samples of each run, the classes or captions in turn")
      .capture_default_str()
      .check(between(2, 100000000));
  declare_grid(command, a);
  add_seed(command, a.seed);
  command.add_option("--batch", a.batch, "images at once; changes nothing but speed and memory")
      .capture_default_str()
      .check(between(1, 65536));
  command.add_option("--limit", a.limit, "real and baseline images at most; 0 = all, or 10000 of an endless set")
      .check(between(0, 100000000));
  command
      .add_option("--json", a.json,
                  "writes the figures to a file as well; metrics of sets write it after each run, and runs that it has "
                  "are not computed again")
      .type_name("FILE");
  command
      .add_option("--compare", a.compare, "prints files of --json in one table, if their figures can be compared; instead of a CHECKPOINT")
      .allow_extra_args(false)
      .delimiter(',')
      .type_name("FILES");
}

}  // namespace

void add_evaluate(Command app, Program& program, int& code) {
  const Command command =
      app.add_subcommand("evaluate", "measures samples by features or a metric, or how good a classifier or an autoencoder is");
  auto a = std::make_shared<Arguments>();
  declare_judged(command, *a);
  declare_samples(command, *a);
  a->settings.add_sampling_to(command);
  a->settings.add_to(command, {"--control", "--control-image"});
  add_rendezvous(command, a->job);
  command.callback([&program, &code, a] {
    if (!a->source.empty()) a->settings.source = a->source = model_file(a->source);
    a->grid.samplers = list_of(a->samplers, "--sampler");
    if (!a->classifier.empty()) a->features = "classifier:" + a->classifier;
    code = in_job(a->job, a->settings.overrides.threads, [&](World& world) { return evaluate(program, *a, world); });
  });
}

}  // namespace brume::tools
