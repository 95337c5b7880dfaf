#include "commands/evaluate_sets.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/foreign.h"
#include "brume/config/suggest.h"
#include "brume/config/yaml.h"
#include "brume/core/fnv.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/train/feature_summary.h"
#include "commands/captions.h"
#include "commands/evaluation_file.h"
#include "commands/image_sets.h"
#include "commands/open_features.h"
#include "program/progress.h"
#include "sampling/piece.h"

namespace brume::tools {
namespace {

/// The real images: what rank 0 knows of them, and of where it came from.
struct Reference {
  FeatureSummary summary;
  std::string hash;
  std::vector<std::string> notes;
};

/// Returns the names in "fid,kid", or the items of a YAML list.
std::vector<Value> metric_values(const std::string& text) {
  if (text.starts_with('[')) return parse_yaml(text, "--metric").items;
  if (text.starts_with('{')) return {parse_yaml(text, "--metric")};
  std::vector<Value> all;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) all.push_back(parse_yaml(text.substr(begin, end - begin), "--metric"));
    begin = end + 1;
  }
  return all;
}

std::string type_of(const Value& metric) {
  const Value* type = metric.is_map() ? metric.find("type") : &metric;
  return type ? type->scalar : std::string();
}

Reference reference(Program& program, const SetArguments& a, const Features& extractor, const SetMetric::Needs& needs,
                    const std::optional<ImageShape>& shape, World& world) {
  if (!needs.real) return {};
  const ImageSet set{"--real", a.real, a.limit};
  SetMetric::Needs of_images = needs;
  of_images.logits = of_images.captions = false;
  const bool stored = holds_statistics(a.real);
  if (stored && needs.rows && !has_array(set, "arr_0"))
    throw ConfigError(fmt::format("--real: {} has statistics alone, and {} needs the images", a.real, a.metrics));
  Reference real;
  if (stored) {
    if (world.leads()) {
      real.summary = read_statistics(a.real, extractor, needs);
      real.hash = "sha256:" + sha256(MappedFile::open(a.real)->bytes());
    }
    if (a.limit > 0 && !needs.rows && world.leads()) print_warning(fmt::format("--limit: has no effect on the statistics of {}", a.real));
    if (!needs.rows) return real;
    of_images.statistics = of_images.spatial = false;
  }
  FeatureSummarizer summarizer(extractor, of_images, "--real", world);
  add_images(program, summarizer, extractor, set, shape, a.batch);
  if (!world.leads()) return real;
  FeatureSummary images = summarizer.summary();
  real.notes = summarizer.notes();
  if (!stored) return {std::move(images), "fnv1a:" + summarizer.hash(), real.notes};
  real.summary.rows = images.rows;
  real.notes.push_back(fmt::format("metrics of each image's features take the {} of arr_0, the others the file's statistics",
                                   counted(images.images, "image")));
  return real;
}

/// What is evaluated with what, and how far it is.
struct Evaluation {
  std::vector<std::shared_ptr<const SetMetric>> metrics;
  SetMetric::Needs needs;
  std::shared_ptr<const Features> extractor;
  std::vector<std::string> captions;
  Reference real{};
  EvaluationFile file{};
};

/// Returns the set with its figures and what they are of.
EvaluatedSet judged(const FeatureSummarizer& images, const Evaluation& e, EvaluatedSet set) {
  set.hash = "fnv1a:" + images.hash(), set.images = images.images(), set.notes = images.notes();
  const FeatureSummary summary = images.summary();
  for (const auto& metric : e.metrics) {
    const auto figures = calling(*metric, "score()", [&] { return metric->score(summary, e.real.summary); });
    set.figures.insert(set.figures.end(), figures.begin(), figures.end());
  }
  return set;
}

/// Numbers of images that published figures are of, by the name of the figure.
constexpr std::pair<std::string_view, int64_t> published[] = {{"fid", 50000},       {"sfid", 50000},      {"inception_score", 50000},
                                                              {"fd_dinov2", 50000}, {"precision", 50000}, {"cmmd", 30000}};

/// Returns the SHA-256 of a model's file; "" of a directory.
std::string hash_of(const std::string& model) {
  return std::filesystem::is_regular_file(model) ? "sha256:" + sha256(MappedFile::open(model)->bytes()) : "";
}

/// Returns the options of the command line that decide how images are sampled.
nlohmann::ordered_json settings_of(const SampleArguments& a) {
  nlohmann::ordered_json settings = nlohmann::ordered_json::object();
  for (const auto& option : SampleArguments::options())
    if (const auto values = option.values(a); option.recorded && !values.empty() && option.long_name() != "--seed")
      settings[option.long_name().substr(2)] = fmt::format("{}", fmt::join(values, " "));
  return settings;
}

/// Says under what conditions the figures hold.
void print_notes(const SetArguments& a, const Evaluation& e) {
  const Features& extractor = *e.extractor;
  const Reference& real = e.real;
  const SetMetric::Needs& needs = e.needs;
  fmt::print("features: {}{}; {}\n", extractor.name(),
             extractor.hash().empty() ? "" : fmt::format(" (SHA-256 {})", extractor.hash().substr(0, 16)), preprocessing_of(extractor));
  if (needs.real)
    fmt::print("real: {}, {} images ({})\n", a.real,
               real.summary.images > 0 ? fmt::to_string(real.summary.images) : std::string("an unknown number of"), real.hash);
  for (const std::string& note : real.notes) fmt::print("note: real images: {}\n", note);
  for (const EvaluatedSet& set : e.file.sets)
    for (const std::string& note : set.notes) fmt::print("note: {}: {}\n", set.name, note);
  const int64_t wide = std::max(needs.statistics ? extractor.width() : 0, needs.spatial ? extractor.spatial_width() : 0);
  for (const EvaluatedSet& set : e.file.sets)
    if (set.images <= wide)
      print_warning(fmt::format("{}: {} are few for {}: the covariance is singular, and the Fréchet distance too large", set.name,
                                counted(set.images, "image"), counted(wide, "feature")));
  const EvaluatedSet& set = e.file.sets.front();  // all have the same number of images
  for (const auto& f : set.figures)
    for (const auto& [name, number] : published)
      if (f.name == name && set.images < number)
        print_warning(fmt::format("published figures of {} are of {}, and these of {}", name, counted(number, "image"), set.images));
}

nlohmann::ordered_json conditions_of(const SetArguments& a, const Features& extractor, const Reference& real,
                                     const std::vector<std::string>& captions, bool compares) {
  nlohmann::ordered_json file;
  if (a.images.empty()) {
    file["model"] = a.settings.source;
    file["model_hash"] = hash_of(a.settings.source);
    file["seed"] = a.seed;
    file["count"] = a.count;
    file["settings"] = settings_of(a.settings);
  } else {
    file["images"] = a.images;
  }
  file["metrics"] = a.metrics;
  file["features"] = {{"name", extractor.name()},
                      {"hash", extractor.hash()},
                      {"preprocessing", extractor.preprocessing()},
                      {"precision", extractor.dtype() == at::kBFloat16 ? "bf16" : "fp32"},
                      {"width", extractor.width()}};
  if (compares) file["real"] = {{"name", a.real}, {"images", real.summary.images}, {"hash", real.hash}, {"notes", real.notes}};
  if (!captions.empty()) {
    Fnv1a hash;
    for (const std::string& caption : captions) hash.add(fnv1a(caption));
    file["captions"] = {{"name", a.captions}, {"number", captions.size()}, {"hash", fmt::format("fnv1a:{:016x}", hash.value)}};
  }
  return file;
}

EvaluatedSet set_of(const SamplingRun& run) {
  return {.name = run.name, .hash = {}, .steps = run.options.steps, .sampler = run.sampler, .cfg = run.cfg, .calls = run.calls};
}

/// Returns for each run the set that the file of --json has. The processes agree on what rank 0 finds, which alone knows the figures.
std::vector<std::optional<EvaluatedSet>> finished(const SetArguments& a, const Evaluation& e, const std::vector<SamplingRun>& runs,
                                                  World& world) {
  std::vector<std::optional<EvaluatedSet>> sets(runs.size());
  std::vector<EvaluatedSet> kept;
  if (world.leads() && !a.json.empty()) kept = finished_sets(a.json, e.file.conditions);
  const Tensor found = at::zeros({int64_t(runs.size())}, at::kLong);
  for (size_t i = 0; i < runs.size(); ++i)
    for (const EvaluatedSet& set : kept)
      if (!sets[i] && set.same_sampling(set_of(runs[i]))) {
        sets[i] = set, found.data_ptr<int64_t>()[i] = 1;
        if (runs[i].calls > 0) sets[i]->calls = runs[i].calls;
      }
  world.broadcast(found);
  for (size_t i = 0; i < runs.size(); ++i)
    if (!sets[i] && found.data_ptr<int64_t>()[i] == 1) sets[i] = set_of(runs[i]);
  return sets;
}

/// Judges the samples of each run that the file of --json does not have yet, and writes the file after each.
void judge_model(Program& program, const SetArguments& a, Evaluation& e, const Model& model, const std::vector<SamplingRun>& runs,
                 World& world) {
  if (world.size() > 1)
    for (const SamplingRun& run : runs) check_divisible(run.options, counted(world.size(), "process").c_str());
  e.real = reference(program, a, *e.extractor, e.needs, model.shape(), world);
  if (world.leads()) e.file.conditions = conditions_of(a, *e.extractor, e.real, e.captions, e.needs.real);
  const auto kept = finished(a, e, runs, world);
  for (size_t i = 0; i < runs.size(); ++i) {
    const SamplingRun& run = runs[i];
    if (kept[i]) {
      if (world.leads()) fmt::print("{}: taken from {}\n", run.name, a.json);
      e.file.sets.push_back(*kept[i]);
      continue;
    }
    FeatureSummarizer summarizer(*e.extractor, e.needs, run.name, world);
    Progress progress(run.name, world.part(a.count).count() * run.options.steps, "image steps");
    add_samples(summarizer, model.pipeline(), run.options, a.count, a.batch, a.seed, moving(progress, run.options.steps), model.others(),
                e.captions);
    progress.finish();
    if (!world.leads()) continue;
    e.file.sets.push_back(judged(summarizer, e, set_of(run)));
    if (!a.json.empty()) write_evaluation(a.json, e.file);
  }
}

void judge_images(Program& program, const SetArguments& a, Evaluation& e, World& world) {
  const std::optional<ImageShape> shape = shape_of(a.shape);
  e.real = reference(program, a, *e.extractor, e.needs, shape, world);
  FeatureSummarizer summarizer(*e.extractor, e.needs, "--images", world);
  add_images(program, summarizer, *e.extractor, {"--images", a.images, a.limit, e.captions}, shape, a.batch);
  if (!world.leads()) return;
  const EvaluatedSet set = judged(summarizer, e, {.name = "images", .hash = {}});
  e.file = {conditions_of(a, *e.extractor, e.real, e.captions, e.needs.real), {set}};
  if (!a.json.empty()) write_evaluation(a.json, e.file);
}

}  // namespace

bool judges_sets(const Registry& registry, const std::string& metrics) {
  const std::vector<std::string> of_sets = registry.names("set_metric");
  std::vector<std::string> all = registry.names("metric");
  all.insert(all.end(), of_sets.begin(), of_sets.end());
  for (const Value& value : metric_values(metrics)) {
    const std::string name = type_of(value), known = std::find(all.begin(), all.end(), name) != all.end() ? name : closest(name, all);
    if (std::find(of_sets.begin(), of_sets.end(), known) != of_sets.end()) return true;
  }
  return false;
}

int evaluate_sets(Program& program, const SetArguments& a, World& world) {
  Evaluation e;
  for (const Value& value : metric_values(a.metrics)) e.metrics.push_back(create<SetMetric>(program.registry, value));
  e.needs = needs_of(e.metrics);
  if (a.features.empty()) throw ConfigError(fmt::format("--metric: {} needs --features, such as inception:FILE", a.metrics));
  if (e.needs.real && a.real.empty()) throw ConfigError(fmt::format("--metric: {} needs --real, the real images", a.metrics));
  if (a.images.empty() == a.settings.source.empty())
    throw ConfigError("evaluate needs either a CHECKPOINT, whose samples are judged, or --images");
  if (e.needs.captions && a.captions.empty())
    throw ConfigError(fmt::format("--metric: {} needs --captions, a caption per line", a.metrics));
  if (!a.captions.empty()) e.captions = captions_in(a.captions);
  e.extractor = open_features(program, a.features, a.settings.overrides);
  check_needs(e.needs, *e.extractor);
  if (a.images.empty()) {
    const Model model = open_model(program.registry, a.settings);
    if (!e.captions.empty() && !e.needs.captions && !model.pipeline().options().controls().captions)
      print_warning(fmt::format("--captions: has no effect: {} takes none, and {} does not need them", a.settings.source, a.metrics));
    judge_model(program, a, e, model, sampling_runs(model, request_of(a.settings, model), a.grid), world);
  } else {
    if (!e.captions.empty() && !e.needs.captions) print_warning(fmt::format("--captions: has no effect: {} does not need them", a.metrics));
    judge_images(program, a, e, world);
  }
  if (!world.leads()) return 0;
  print_table(e.file.sets);
  print_notes(a, e);
  return 0;
}

}  // namespace brume::tools
