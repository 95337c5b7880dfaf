#include "brume/diffusion/run_controls.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <stdexcept>

#include "brume/config/errors.h"
#include "brume/core/boundary.h"
#include "brume/core/image_prompt.h"
#include "brume/core/warnings.h"
#include "brume/image/control_image.h"
#include "brume/nn/ops/one_call_scope.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace {

/// Returns the levels of sigma between which a control counts: those of the steps that lie within its share of the run, as diffusers has
/// it.
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

/// Returns [1 or count, 3, H, W] in [0, 1]: of an image file, or the one tensor of a safetensors file; of the file's size if the use has
/// none; or of the images of `source`, [count, C, H, W], if only a preprocessor is asked for.
Tensor images_of(const std::string& asked, const ControlImageUse& use, const Tensor& source, int64_t count) {
  const std::vector<std::string> known = image_preprocessors();
  if (source.defined() && std::find(known.begin(), known.end(), asked) != known.end()) {
    if (source.size(0) != count || (use.height > 0 && (source.size(2) != use.height || source.size(3) != use.width)))
      throw std::logic_error("the images that controls see are not as many, or as large, as those that are made");
    return control_images(source.cpu(), asked);
  }
  if (!asked.ends_with(".safetensors") || !std::filesystem::is_regular_file(asked)) return control_image(asked, use);
  const NamedTensors tensors = load_tensors(asked);
  const Tensor images = tensors.size() == 1 ? tensors.front().tensor.to(at::kFloat) : Tensor();
  const auto sides = [&] { return use.height == 0 || (images.size(2) == use.height && images.size(3) == use.width); };
  if (!images.defined() || images.dim() != 4 || images.size(1) != 3 || (images.size(0) != 1 && images.size(0) != count) || !sides())
    throw ConfigError(fmt::format("control image: {} must hold one tensor [1 or {}, 3, {}] of values in [0, 1]", asked, count,
                                  use.height == 0 ? "height, width" : fmt::format("{}, {}", use.height, use.width)));
  return images;
}

/// Returns -1 - n of the number n of a row's image: that of its unconditional row.
Tensor unconditional(const Tensor& numbers) { return -1 - numbers; }

void set_plan(Condition& condition, const Tensor& rows, const Tensor& null_rows) {
  condition.plan = rows;
  if (!condition.null) return;
  Condition null = *condition.null;
  set_plan(null, null_rows, null_rows);
  condition.null = std::make_shared<Condition>(std::move(null));
}

/// Returns the rows of images `numbers`, [B] int64; the one row of all images; the last row for unconditional ones if it is theirs.
std::vector<Tensor> rows_of(const std::vector<Tensor>& encoded, const Tensor& numbers, bool last_is_none) {
  const Tensor none = numbers < 0, images = at::where(none, unconditional(numbers), numbers);
  std::vector<Tensor> rows;
  for (const Tensor& t : encoded) {
    const int64_t own = t.size(0) - (last_is_none ? 1 : 0);
    const Tensor chosen = images.clamp_max(own - 1);
    rows.push_back(t.index_select(0, (last_is_none ? chosen.masked_fill(none, own) : chosen).to(t.device())));
  }
  return rows;
}

/// Returns the mask, which may be undefined, with zeros in the rows of unconditional estimates.
Tensor in_conditional(const Tensor& mask, const Tensor& numbers, const at::Device& device) {
  const Tensor rows = (numbers >= 0).to(device, at::kFloat).view({-1, 1, 1, 1});
  return mask.defined() ? mask * rows : rows;
}

}  // namespace

RunControls::RunControls(const Pipeline& model, const std::vector<std::shared_ptr<const Control>>& controls, const ControlledRun& run) {
  const ConditionerTraits condition = model.options().conditioner->traits();
  const ControlledModel steered{.network = model.network(),
                                .latent = model.latent(),
                                .context_width = condition.context_width,
                                .ratio = std::max<int64_t>(1, run.image.height / run.latent.height),
                                .device = model.compute().device,
                                .dtype = model.compute().dtype};
  for (size_t i = 0; i < controls.size(); ++i) {
    const ControlSettings& s = controls[i]->settings();
    const auto place = [&] { return fmt::format("sample.control.{}", i); };
    const auto [highest, lowest] = levels(s, run.sigmas);
    if (s.file.empty()) throw ConfigError(place() + ".file: the file of the weights is missing");
    if (s.image.empty()) throw ConfigError(place() + ".image: the image that steers is missing");
    if (s.scale == 0 || highest == 0) {
      warn(fmt::format(
          "{}: has no effect: {}", place(),
          s.scale == 0 ? "its scale is 0" : fmt::format("no step of {} lies between {} and {}", run.sigmas.size() - 1, s.from, s.to)));
      continue;
    }
    Entry entry{s, calling(*controls[i], "open()", [&] { return controls[i]->open(steered); }), {}, {}, highest, lowest};
    entry.prompt = dynamic_cast<const OpenImagePrompt*>(entry.control.get()) != nullptr;
    const int64_t height = run.image.height, width = run.image.width;
    const ControlImageUse use = entry.prompt ? ControlImageUse{0, 0, {}} : ControlImageUse{height, width, run.mask};
    const Tensor images = images_of(s.image, use, run.source, run.count);
    const nn::OneCallScope once;
    entry.encoded = calling(*controls[i], "encode()", [&] { return entry.control->encode(images); });
    if (!s.mask.empty()) entry.mask = control_mask(s.mask, height, width).to(steered.device);
    entries_.push_back(std::move(entry));
  }
}

void RunControls::number_rows(Condition& condition, int64_t first, int64_t rows) const {
  const Tensor numbers = at::arange(first, first + rows);
  set_plan(condition, numbers, unconditional(numbers));
}

CallTaps RunControls::taps() const {
  if (entries_.empty()) return {};
  return [this](Taps taps, double sigma, const Tensor& input, const Tensor& c_noise, const Condition& condition) {
    const Tensor numbers = condition.plan.defined() ? condition.plan : at::arange(input.size(0));
    for (const Entry& e : entries_)
      if (e.counts_at(sigma)) {
        const std::vector<Tensor> rows = rows_of(e.encoded, numbers, e.prompt);
        const Tensor mask = e.control->conditional_only() ? in_conditional(e.mask, numbers, input.device()) : e.mask;
        e.control->add_to(
            taps, {.input = input, .c_noise = c_noise, .condition = condition, .control = rows, .mask = mask, .scale = e.settings.scale});
      }
    return taps;
  };
}

}  // namespace brume
