#include "brume/diffusion/run_controls.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/remainder.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "brume/config/errors.h"
#include "brume/core/boundary.h"
#include "brume/image/control_image.h"

namespace brume {
namespace {

/// The levels of sigma between which a control counts: those of the steps that lie within its share of the run, as diffusers has it.
std::pair<double, double> levels(const ControlSettings& s, const std::vector<double>& sigmas) {
  constexpr double slack = 1e-9;  // 0.3 of 10 steps are 3
  const double steps = double(sigmas.size() - 1);
  int64_t first = 0, end = 0;
  while (double(first) < s.from * steps - slack) ++first;
  while (double(end + 1) <= s.to * steps + slack) ++end;
  if (first >= end) return {0, 0};
  const bool last = end == int64_t(steps);
  return {first == 0 ? std::numeric_limits<double>::infinity() : sigmas[size_t(first)], last ? -1 : sigmas[size_t(end)]};
}

void set_plan(Condition& condition, const Tensor& rows, int64_t count) {
  if (condition.plan.defined()) throw ConfigError("sample.control: prompts that change from step to step cannot be combined with controls");
  condition.plan = rows;
  if (!condition.null) return;
  Condition null = *condition.null;
  set_plan(null, rows + count, 0);
  condition.null = std::make_shared<Condition>(std::move(null));
}

}  // namespace

RunControls::RunControls(const Pipeline& model, const std::vector<std::shared_ptr<const Control>>& controls, const ControlledRun& run)
    : count_(run.count) {
  const ConditionerTraits condition = model.options().conditioner->traits();
  const ControlledModel steered{.network = model.network(),
                                .latent = model.latent(),
                                .context_width = condition.context_width,
                                .vector_width = condition.vector_width,
                                .ratio = std::max<int64_t>(1, run.image.height / run.latent.height),
                                .device = model.compute().device,
                                .dtype = model.compute().dtype};
  for (size_t i = 0; i < controls.size(); ++i) {
    const ControlSettings& s = controls[i]->settings();
    const auto place = [&] { return fmt::format("sample.control.{}", i); };
    const auto [highest, lowest] = levels(s, run.sigmas);
    if (s.file.empty()) throw ConfigError(place() + ".file: the file of the weights is missing");
    if (s.image.empty()) throw ConfigError(place() + ".image: the image that steers is missing");
    if (s.scale == 0 || highest == 0) continue;
    Entry entry{s, calling(*controls[i], "open()", [&] { return controls[i]->open(steered); }), {}, {}, highest, lowest};
    const ImageShape shape{3, run.image.height, run.image.width};
    const Tensor images = control_image(s.image, {shape.height, shape.width, entry.control->own_size(), run.mask});
    entry.encoded = calling(*controls[i], "encode()", [&] { return entry.control->encode(images); });
    if (!s.mask.empty()) entry.mask = control_mask(s.mask, shape.height, shape.width).to(steered.device);
    entries_.push_back(std::move(entry));
  }
}

void RunControls::number_rows(Condition& condition, int64_t first, int64_t rows) const {
  set_plan(condition, at::arange(first, first + rows), count_);
}

/// numbers: [B] int64 as Condition::plan has them.
std::vector<Tensor> RunControls::rows_of(const EncodedControl& encoded, const Tensor& numbers) const {
  std::vector<Tensor> rows;
  for (size_t i = 0; i < encoded.given.size(); ++i) {
    const Tensor& given = encoded.given[i];
    const Tensor& null = encoded.null.empty() ? given : encoded.null[i];
    const int64_t images = given.size(0);
    const Tensor of = at::remainder(numbers, count_).clamp_max(images - 1) + (numbers >= count_).to(at::kLong) * images;
    rows.push_back(at::cat({given, null}).index_select(0, of.to(given.device())));
  }
  return rows;
}

CallTaps RunControls::taps() const {
  if (entries_.empty()) return {};
  return [this](Taps taps, double sigma, const Tensor& input, const Tensor& c_noise, const Condition& condition) {
    const Tensor numbers = condition.plan.defined() ? condition.plan : at::arange(input.size(0));
    for (const Entry& e : entries_)
      if (e.counts_at(sigma)) {
        const std::vector<Tensor> rows = rows_of(e.encoded, numbers);
        e.control->add_to(
            taps, {.input = input, .c_noise = c_noise, .condition = condition, .control = rows, .mask = e.mask, .scale = e.settings.scale});
      }
    return taps;
  };
}

}  // namespace brume
