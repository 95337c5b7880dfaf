#include "commands/evaluate_metric.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/config/yaml.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/files/atomic_file.h"
#include "brume/train/judgement.h"
#include "commands/captions.h"
#include "commands/open_data.h"
#include "program/progress.h"
#include "sampling/piece.h"

namespace brume::tools {
namespace {

/// A set of images and what was said of it.
struct Row {
  std::string name;
  Tally tally;
  int64_t steps = 0;  ///< 0 = no samples
  int64_t calls = 0;  ///< 0 = not counted
};

std::vector<Annotation> captions_of(const std::string& file, int64_t count) {
  const std::vector<std::string> lines = captions_in(file);
  std::vector<Annotation> all;
  for (int64_t i = 0; i < count; ++i) all.push_back({.label = -1, .caption = lines[size_t(i) % lines.size()]});
  return all;
}

std::string percent(const Tally::Part& part) { return part.asked > 0 ? fmt::format("{:.2f} %", 100 * part.share()) : std::string("-"); }

void print_table(const std::vector<Row>& rows) {
  std::vector<std::string> parts;  // of any row
  size_t width = 8;
  for (const Row& r : rows)
    for (const Tally::Group& g : r.tally.groups()) {
      width = std::max(width, r.name.size() + 2 + g.name.size());
      for (const Tally::Part& p : g.parts)
        if (std::find(parts.begin(), parts.end(), p.name) == parts.end()) parts.push_back(p.name);
    }
  fmt::print("{:<{}} {:>8} {:>10}", "", width, "images", "right");
  for (const std::string& part : parts) fmt::print(" {:>10}", part);
  fmt::print("\n");
  for (const Row& r : rows)
    for (const Tally::Group& g : r.tally.groups()) {
      fmt::print("{:<{}} {:>8} {:>10}", r.name + ", " + g.name, width, g.whole.asked, percent(g.whole));
      for (const std::string& part : parts) {
        const auto found = std::find_if(g.parts.begin(), g.parts.end(), [&](const Tally::Part& p) { return p.name == part; });
        fmt::print(" {:>10}", found == g.parts.end() ? "-" : percent(*found));
      }
      fmt::print("\n");
    }
}

void write_json(const MetricArguments& a, const std::vector<Row>& rows) {
  if (a.json.empty()) return;
  nlohmann::ordered_json file{
      {"model", a.settings.source}, {"metric", a.metric}, {"seed", a.seed}, {"sets", nlohmann::ordered_json::array()}};
  for (const Row& r : rows) {
    nlohmann::ordered_json set{{"name", r.name}};
    if (r.steps > 0) set["steps"] = r.steps;
    if (r.calls > 0) set["calls"] = r.calls;
    for (const Tally::Group& g : r.tally.groups()) {
      nlohmann::ordered_json figures{{"images", g.whole.asked}, {"right", g.whole.share()}};
      for (const Tally::Part& p : g.parts) figures[p.name] = p.share();
      set["groups"][g.name] = figures;
    }
    for (const Tally::Judged& j : r.tally.judged())
      set["images"].push_back({{"caption", j.caption}, {"seen", j.verdict.seen}, {"right", j.verdict.right}});
    file["sets"].push_back(set);
  }
  write_file(a.json, file.dump(1) + "\n");
}

/// Captions that the metric does not understand are found before any sampling.
void check_captions(const Metric& metric, const ImageShape& shape, const std::vector<Annotation>& asked) {
  const std::vector<float> blank(size_t(shape.numel()), 0.0f);
  for (const Annotation& wanted : asked) metric.judge(blank, shape, wanted);
}

}  // namespace

int evaluate_metric(Program& program, const MetricArguments& a, World& world) {
  if (a.data.empty() == a.captions.empty()) throw ConfigError("--metric: needs captions: either --data DATA or --captions FILE");
  const auto metric = create<Metric>(program.registry, parse_yaml(a.metric, "--metric"));
  const Model model = open_model(program.registry, a.settings);
  const ImageRequest settings = request_of(a.settings, model);
  const auto runs = sampling_runs(model, settings, a.grid);
  if (world.size() > 1)
    for (const SamplingRun& run : runs) check_divisible(run.options, counted(world.size(), "process").c_str());
  const Controls controls = model.pipeline().options().controls();
  const bool by_class = controls.classes > 0 && !controls.captions;
  if (by_class && a.data.empty())
    throw ConfigError(fmt::format("--captions: {} is conditioned on classes; --data has both classes and captions", a.settings.source));
  std::vector<Row> rows;
  std::vector<Annotation> asked;
  if (a.data.empty()) {
    check_captions(*metric, model.shape(), asked = captions_of(a.captions, a.count));
  } else {
    const auto data = open_data(program, "--data", a.data, model.shape());
    if (by_class && int64_t(data->classes().size()) != controls.classes)
      throw ConfigError(
          fmt::format("--data: has {}, and {} has {}", counted(data->classes().size(), "class"), a.settings.source, controls.classes));
    const auto labelled = with_classes(data, "--data", {model.classes(settings), "the model"});
    JudgedSet set = judge_data(*metric, *labelled, model.shape(), a.count);
    rows.push_back({.name = "data", .tally = std::move(set.tally)});
    asked = std::move(set.asked);
  }
  if (model.classes(settings).empty())
    for (Annotation& wanted : asked) wanted.label = -1;
  if (by_class && world.leads()) fmt::print("note: this model knows the class of an image, not its caption\n");
  if (!controls.captions && !by_class && world.leads()) fmt::print("note: this model knows neither class nor caption of an image\n");
  for (const auto& [name, options, sampler, cfg, calls] : runs) {
    SampleRequest request;
    request.seed = a.seed;
    request.batch = a.batch;
    request.models = &model.others();
    Progress progress(name, world.part(int64_t(asked.size())).count() * options.steps, "image steps");
    request.observer = moving(progress, options.steps);
    rows.push_back({name, judge_samples(*metric, model.pipeline(), options, asked, request, world), options.steps, calls});
  }
  if (!world.leads()) return 0;
  fmt::print("{}: {}, seed {}; judged by {}\n", a.settings.source, steps_of(runs), a.seed, a.metric);
  print_table(rows);
  write_json(a, rows);
  return 0;
}

}  // namespace brume::tools
