#include "commands/evaluate_control.h"

#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "brume/config/counted.h"
#include "brume/diffusion/class_names.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/files/atomic_file.h"
#include "brume/image/control_image.h"
#include "brume/train/class_scores.h"
#include "brume/train/control_agreement.h"
#include "commands/open_data.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

struct Row {
  std::string name;
  ControlAgreement agreement;
  int64_t steps = 0, calls = 0;  ///< calls: 0 = not counted
};

/// The images whose hints steer, and what they show.
struct Wanted {
  Tensor images, hints;
  std::vector<Annotation> annotations;
};

std::string preprocessor_of(const ControlEvaluation& a, const World& world) {
  const ImageRequest& r = a.settings.request;
  const std::vector<std::string> known = image_preprocessors();
  if (a.data.empty()) throw ConfigError("--control: evaluate needs --data, the images whose hints steer");
  if (r.controls.size() != 1 || r.control_images.size() != 1)
    throw ConfigError("--control: evaluate takes one, and one --control-image, the preprocessor that makes its hints");
  if (std::find(known.begin(), known.end(), r.control_images.front()) == known.end())
    throw ConfigError(fmt::format("--control-image: evaluate makes hints of the images of --data, by {}; it was given '{}'",
                                  fmt::join(known, ", "), r.control_images.front()));
  if (world.size() > 1)
    throw ConfigError(fmt::format("--control: {} do not divide the evaluation of a control; start one", counted(world.size(), "process")));
  return r.control_images.front();
}

Wanted wanted_images(Program& program, const ControlEvaluation& a, const Model& model, const ImageRequest& request,
                     const std::string& preprocessor) {
  const std::vector<std::string> classes = model.classes(request);
  std::shared_ptr<const Dataset> data = open_data(program, "--data", a.data, model.shape());
  if (!classes.empty()) data = with_classes(std::move(data), "--data", {classes, "the model"});
  Wanted wanted;
  std::vector<Tensor> parts;
  for_each_batch(*data, model.shape(), a.batch, a.count, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
    parts.push_back(images);
    wanted.annotations.insert(wanted.annotations.end(), annotations.begin(), annotations.end());
    return true;
  });
  if (classes.empty())
    for (Annotation& one : wanted.annotations) one.label = -1;
  wanted.images = at::cat(parts);
  wanted.hints = control_images(wanted.images, preprocessor);
  return wanted;
}

Row sampled(const ControlEvaluation& a, const Model& model, const SampleOptions& options, const std::string& name, const Wanted& wanted,
            const std::string& preprocessor, int64_t calls) {
  Row row{name, ControlAgreement(preprocessor), options.steps, calls};
  SampleRequest request;
  request.images = wanted.annotations;
  request.control_source = wanted.images;
  request.seed = a.seed;
  request.batch = a.batch;
  request.models = &model.others();
  Progress progress(name, int64_t(wanted.annotations.size()) * options.steps, "image steps");
  request.observer = moving(progress, options.steps);
  request.made = [&](int64_t first, const Tensor& images) { row.agreement.add(images, wanted.hints.narrow(0, first, images.size(0))); };
  sample_batches(model.pipeline(), request, options);
  return row;
}

void print_table(const std::vector<Row>& rows) {
  size_t width = 8;
  for (const Row& r : rows) width = std::max(width, r.name.size());
  fmt::print("{:<{}} {:>8} {:>10} {:>10}\n", "", width, "images", "IoU", "error");
  for (const Row& r : rows) {
    const double overlap = r.agreement.overlap();
    fmt::print("{:<{}} {:>8} {:>10} {:>10.4f}\n", r.name, width, r.agreement.images(),
               std::isnan(overlap) ? "-" : fmt::format("{:.4f}", overlap), r.agreement.error());
  }
}

void write_json(const ControlEvaluation& a, const std::string& preprocessor, const std::vector<Row>& rows) {
  if (a.json.empty()) return;
  nlohmann::ordered_json file{{"model", a.settings.source},
                              {"control", a.settings.request.controls.front()},
                              {"preprocessor", preprocessor},
                              {"seed", a.seed},
                              {"sets", nlohmann::ordered_json::array()}};
  for (const Row& r : rows) {
    nlohmann::ordered_json set{{"name", r.name}, {"images", r.agreement.images()}, {"error", r.agreement.error()}, {"steps", r.steps}};
    if (r.calls > 0) set["calls"] = r.calls;
    if (const double overlap = r.agreement.overlap(); !std::isnan(overlap)) set["iou"] = overlap;
    file["sets"].push_back(set);
  }
  write_file(a.json, file.dump(1) + "\n");
}

}  // namespace

int evaluate_control(Program& program, const ControlEvaluation& a, World& world) {
  const std::string preprocessor = preprocessor_of(a, world);
  const Model model = open_model(program.registry, a.settings);
  const ImageRequest request = request_of(a.settings, model);
  const auto runs = sampling_runs(model, request, a.grid);
  const Wanted wanted = wanted_images(program, a, model, request, preprocessor);
  std::vector<Row> rows;
  for (const SamplingRun& run : runs) {
    const std::string of = runs.size() > 1 || run.calls > 0 ? run.name + ", " : "";
    rows.push_back(sampled(a, model, run.options, of + "with", wanted, preprocessor, run.calls));
    SampleOptions alone = run.options;
    alone.control.clear();
    rows.push_back(sampled(a, model, alone, of + "without", wanted, preprocessor, run.calls));
  }
  fmt::print("{}: {}, seed {}; hints by {}\n", a.settings.source, steps_of(runs), a.seed, preprocessor);
  print_table(rows);
  write_json(a, preprocessor, rows);
  return 0;
}

}  // namespace brume::tools
