#include "commands/evaluate_sets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "brume/config/foreign.h"
#include "brume/config/suggest.h"
#include "brume/config/yaml.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/sha256.h"
#include "brume/train/feature_summary.h"
#include "commands/image_sets.h"
#include "commands/open_features.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

/// A judged set: its figures, and what they are of.
struct Row {
  std::string name, hash;
  int64_t images = 0, steps = 0;
  std::vector<std::string> notes;
  std::vector<SetMetric::Figure> figures;
};

/// The real images: what is known of them, and of where it came from.
struct Reference {
  FeatureSummary summary;
  std::string hash;
  std::vector<std::string> notes;
};

/// The names in "fid,kid", or the items of a YAML list.
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
                    const std::optional<ImageShape>& shape) {
  if (!needs.real) return {};
  const ImageSet set{"--real", a.real, a.limit};
  SetMetric::Needs of_images = needs;
  of_images.logits = of_images.captions = false;
  const bool stored = holds_statistics(a.real);
  if (stored && needs.rows && !has_array(set, "arr_0"))
    throw ConfigError(fmt::format("--real: {} has statistics alone, and {} needs the images", a.real, a.metrics));
  Reference real;
  if (stored) {
    real.summary = read_statistics(a.real, extractor, needs);
    real.hash = "sha256:" + sha256(MappedFile::open(a.real)->bytes());
    if (a.limit > 0 && !needs.rows) print_warning(fmt::format("--limit: has no effect on the statistics of {}", a.real));
    if (!needs.rows) return real;
    of_images.statistics = of_images.spatial = false;
  }
  FeatureSummarizer summarizer(extractor, of_images, "--real");
  add_images(program, summarizer, extractor, set, shape, a.batch);
  FeatureSummary images = summarizer.summary();
  real.notes = summarizer.notes();
  if (!stored) return {std::move(images), "fnv1a:" + summarizer.hash(), real.notes};
  real.summary.rows = images.rows;
  real.notes.push_back(
      fmt::format("metrics of each image's features take the {} images of arr_0, the others the file's statistics", images.images));
  return real;
}

Row judged(const std::string& name, const FeatureSummarizer& set, const Reference& real,
           const std::vector<std::shared_ptr<const SetMetric>>& metrics) {
  Row row{name, "fnv1a:" + set.hash(), set.images(), 0, set.notes(), {}};
  const FeatureSummary summary = set.summary();
  for (const auto& metric : metrics) {
    const auto figures = calling(*metric, "score()", [&] { return metric->score(summary, real.summary); });
    row.figures.insert(row.figures.end(), figures.begin(), figures.end());
  }
  return row;
}

Row judge_samples(const SetArguments& a, const Features& extractor, const Model& model, const std::string& name,
                  const SampleOptions& options, const SetMetric::Needs& needs, const Reference& real,
                  const std::vector<std::shared_ptr<const SetMetric>>& metrics) {
  FeatureSummarizer summarizer(extractor, needs, name);
  Progress progress(name, a.count * options.steps, "image steps");
  add_samples(summarizer, model.pipeline(), options, a.count, a.batch, a.seed, moving(progress, options.steps), model.others());
  progress.finish();
  Row row = judged(name, summarizer, real, metrics);
  row.steps = options.steps;
  return row;
}

void print_table(const std::vector<Row>& rows) {
  size_t width = 8;
  for (const Row& r : rows) width = std::max(width, r.name.size());
  fmt::print("{:<{}} {:>8}", "", width, "images");
  const auto column = [](const std::string& name) { return std::max<size_t>(10, name.size()); };
  for (const auto& f : rows.front().figures) fmt::print(" {:>{}}", f.name, column(f.name));
  fmt::print("\n");
  for (const Row& r : rows) {
    fmt::print("{:<{}} {:>8}", r.name, width, r.images);
    for (const auto& f : r.figures) fmt::print(" {:>{}}", fmt::format("{:.6g}", f.value), column(f.name));
    fmt::print("\n");
  }
}

/// Says under what conditions the figures hold.
void print_notes(const SetArguments& a, const Features& extractor, const std::vector<Row>& rows, const Reference& real,
                 const SetMetric::Needs& needs) {
  fmt::print("features: {}{}; images are {}\n", extractor.name(),
             extractor.hash().empty() ? "" : fmt::format(" (SHA-256 {})", extractor.hash().substr(0, 16)), extractor.preprocessing());
  if (needs.real)
    fmt::print("real: {}, {} images ({})\n", a.real,
               real.summary.images > 0 ? fmt::to_string(real.summary.images) : std::string("an unknown number of"), real.hash);
  for (const std::string& note : real.notes) fmt::print("note: real images: {}\n", note);
  for (const Row& r : rows)
    for (const std::string& note : r.notes) fmt::print("note: {}: {}\n", r.name, note);
  const int64_t wide = std::max(needs.statistics ? extractor.width() : 0, needs.spatial ? extractor.spatial_width() : 0);
  for (const Row& r : rows)
    if (r.images <= wide)
      print_warning(fmt::format("{}: {} images are few for {} features: the covariance is singular, and the Fréchet distance too large",
                                r.name, r.images, wide));
}

nlohmann::ordered_json json_of(const SetArguments& a, const Features& extractor, const Reference& real, const std::vector<Row>& rows,
                               bool compares) {
  nlohmann::ordered_json file;
  if (a.images.empty())
    file["model"] = a.settings.source, file["seed"] = a.seed;
  else
    file["images"] = a.images;
  file["metrics"] = a.metrics;
  file["features"] = {
      {"name", extractor.name()}, {"hash", extractor.hash()}, {"preprocessing", extractor.preprocessing()}, {"width", extractor.width()}};
  if (compares) file["real"] = {{"name", a.real}, {"images", real.summary.images}, {"hash", real.hash}, {"notes", real.notes}};
  file["sets"] = nlohmann::ordered_json::array();
  for (const Row& r : rows) {
    nlohmann::ordered_json set{{"name", r.name}, {"images", r.images}, {"hash", r.hash}, {"notes", r.notes}};
    if (r.steps > 0) set["steps"] = r.steps;
    for (const auto& f : r.figures) set["figures"][f.name] = f.value;
    file["sets"].push_back(set);
  }
  return file;
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

int evaluate_sets(Program& program, const SetArguments& a) {
  std::vector<std::shared_ptr<const SetMetric>> metrics;
  for (const Value& value : metric_values(a.metrics)) metrics.push_back(create<SetMetric>(program.registry, value));
  const SetMetric::Needs needs = needs_of(metrics);
  if (a.features.empty()) throw ConfigError(fmt::format("--metric: {} needs --features, such as inception:FILE", a.metrics));
  if (needs.real && a.real.empty()) throw ConfigError(fmt::format("--metric: {} needs --real, the real images", a.metrics));
  if (a.images.empty() == a.settings.source.empty())
    throw ConfigError("evaluate needs either a CHECKPOINT, whose samples are judged, or --images");
  const auto extractor = open_features(program, a.features, a.settings.overrides);
  check_needs(needs, *extractor);
  std::vector<Row> rows;
  Reference real;
  if (a.images.empty()) {
    const Model model = open_model(program.registry, a.settings);
    const auto runs = sampling_runs(model, request_of(a.settings, model), a.cfg);
    real = reference(program, a, *extractor, needs, model.shape());
    for (const auto& [name, options] : runs) rows.push_back(judge_samples(a, *extractor, model, name, options, needs, real, metrics));
  } else {
    const std::optional<ImageShape> shape = shape_of(a.shape);
    real = reference(program, a, *extractor, needs, shape);
    FeatureSummarizer summarizer(*extractor, needs, "--images");
    add_images(program, summarizer, *extractor, {"--images", a.images, a.limit}, shape, a.batch);
    rows.push_back(judged("images", summarizer, real, metrics));
  }
  print_table(rows);
  print_notes(a, *extractor, rows, real, needs);
  if (!a.json.empty()) write_file(a.json, json_of(a, *extractor, real, rows, needs.real).dump(1) + "\n");
  return 0;
}

}  // namespace brume::tools
