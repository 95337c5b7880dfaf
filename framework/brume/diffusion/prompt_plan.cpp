#include "brume/diffusion/prompt_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/config/file_hint.h"
#include "brume/config/utf8.h"
#include "brume/core/run_memory.h"
#include "brume/image/control_image.h"
#include "brume/text/prompt_schedule.h"

namespace brume {
namespace {

constexpr char key = 0;  // its address is the owner of the plan in a run's memory

/// Variants of annotations, each once per image.
struct Variants {
  std::vector<Annotation> all;
  int64_t row(Annotation image, std::map<std::string, int64_t>& known, const std::string& text, std::string Annotation::*field) {
    const auto [at, fresh] = known.emplace(text, int64_t(all.size()));
    if (!fresh) return at->second;
    image.*field = text;
    all.push_back(std::move(image));
    return at->second;
  }
};

Condition numbered(Condition c, const Tensor& plan) {
  c.plan = plan;
  return c;
}

/// Returns the rows of `a`, then those of `b`, and the same of their null conditions.
Condition with_rows(const Condition& a, const Condition& b) {
  Condition both = concat(a, b);
  if (a.null && b.null) both.null = std::make_shared<Condition>(with_rows(*a.null, *b.null));
  return both;
}

/// The estimates of one call of the plan, null conditions first, and the sum of them that each row of x has.
struct Calls {
  struct Term {
    double weight;
    Tensor mask;  ///< [1, 1, h, w]; undefined = everywhere
    int64_t place;
  };
  struct Sum {
    std::vector<Term> kept, nulls;
  };
  std::vector<Sum> sums{};
  std::vector<int64_t> of_x{}, rows{}, null_x{}, null_rows{};  ///< row of x, row of the condition

  void add(double weight, const Tensor& mask, int64_t x, int64_t row) {
    sums.back().kept.push_back({weight, mask, int64_t(of_x.size())});
    of_x.push_back(x), rows.push_back(row);
  }
  void add_null(double weight, const Tensor& mask, int64_t x, int64_t row) {
    sums.back().nulls.push_back({weight, mask, int64_t(null_x.size())});
    null_x.push_back(x), null_rows.push_back(row);
  }
  std::vector<int64_t> rows_of_x() const {
    std::vector<int64_t> all = null_x;
    all.insert(all.end(), of_x.begin(), of_x.end());
    return all;
  }
  /// Returns the weighted sums of a tensor with one row per estimate.
  Tensor summed(const Tensor& t) const {
    std::vector<Tensor> each;
    for (const Sum& s : sums) {
      Tensor sum;
      const auto add_one = [&](const Term& term, int64_t place) {
        const Tensor one = t.narrow(0, place, 1), whole = term.weight == 1 ? one : one * term.weight;
        const Tensor part = term.mask.defined() ? whole * term.mask.to(whole.scalar_type()) : whole;
        sum = sum.defined() ? sum + part : part;
      };
      for (const Term& term : s.nulls) add_one(term, term.place);
      for (const Term& term : s.kept) add_one(term, term.place + int64_t(null_x.size()));
      each.push_back(sum);
    }
    return at::cat(each);
  }
};

class PlanFollower final : public Denoiser {
 public:
  explicit PlanFollower(std::shared_ptr<const Denoiser> inner) : inner_(std::move(inner)) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition& condition) const override {
    RunMemory* memory = RunMemory::current();
    const auto plan = memory ? memory->of<std::shared_ptr<const PromptPlan>>(&key) : nullptr;
    if (!plan || !condition.plan.defined()) return inner_->denoise(x, sigma, condition);
    return plan->denoise(*inner_, x, sigma, condition, memory->step_at(sigma));
  }

 private:
  std::shared_ptr<const Denoiser> inner_;
};

}  // namespace

PromptPlan::PromptPlan(const PlannedPrompts& prompts, const Encode& encode) : regions_(prompts.regions), first_(prompts.first) {
  const int64_t steps = prompts.steps;
  const auto at_step = [&](const std::string& text, int64_t s) { return prompts.changes ? text::prompt_at(text, s, steps) : text; };
  Variants variants;
  for (const Annotation& a : prompts.images) {
    std::map<std::string, int64_t> captions, negatives;
    const auto pieces =
        prompts.changes ? text::prompts_between_ands(a.caption) : std::vector<text::PromptPiece>{{.text = a.caption, .weight = 1}};
    Annotation base = a;
    base.caption = at_step(pieces[0].text, 0);
    base.negative = at_step(a.negative, 0);
    Image image;
    for (const text::PromptPiece& p : pieces) {
      image.pieces.push_back({p.weight, {}});
      for (int64_t s = 0; s < steps; ++s)
        image.pieces.back().rows.push_back(variants.row(base, captions, at_step(p.text, s), &Annotation::caption));
    }
    for (int64_t s = 0; s < steps; ++s) {
      image.negative.push_back(variants.row(base, negatives, at_step(a.negative, s), &Annotation::negative));
      if (prompts.with_empty) image.empty.push_back(variants.row(base, negatives, "", &Annotation::negative));
    }
    images_.push_back(std::move(image));
  }
  for (const Image& image : images_)
    if (regions_.defined() && std::ssize(image.pieces) != regions_.size(0))
      throw std::logic_error("a prompt has another number of parts than there are regions");
  encoded_ = encode(variants.all, 0);
  for (int64_t share = 1; share < prompts.encodings; ++share) encoded_ = with_rows(encoded_, encode(variants.all, share));
  for (Image& image : images_) {
    const auto move_rows = [&](std::vector<int64_t>& rows) {
      for (size_t s = 0; s < rows.size(); ++s) rows[s] += int64_t(s) * prompts.encodings / steps * std::ssize(variants.all);
    };
    for (Piece& p : image.pieces) move_rows(p.rows);
    move_rows(image.negative), move_rows(image.empty);
  }
}

Condition PromptPlan::first() const {
  std::vector<int64_t> rows, nulls, empties;
  for (const Image& image : images_) {
    rows.push_back(image.pieces[0].rows[0]), nulls.push_back(image.negative[0]);
    if (!image.empty.empty()) empties.push_back(image.empty[0]);
  }
  const Tensor numbers = at::arange(int64_t(images_.size()), at::kLong);
  Condition c = encoded_;
  c.null = nullptr;
  c = numbered(c.select(at::tensor(rows)), numbers);
  if (!encoded_.null) return c;
  Condition null = numbered(encoded_.null->select(at::tensor(nulls)), numbers * -1 - 1);
  if (!empties.empty())
    null.null = std::make_shared<Condition>(numbered(encoded_.null->select(at::tensor(empties)), numbers * -1 - 1 - int64_t(rows.size())));
  c.null = std::make_shared<Condition>(std::move(null));
  return c;
}

Estimate PromptPlan::denoise(const Denoiser& inner, const Tensor& x, double sigma, const Condition& condition, int64_t step) const {
  Calls calls;
  const Tensor numbers = condition.plan.cpu();
  const int64_t count = int64_t(images_.size());
  const auto image_of = [&](int64_t number) { return number < 0 ? (-1 - number) % count : number; };
  const Tensor regions = regions_.defined() ? at::adaptive_avg_pool2d(regions_, {x.size(2), x.size(3)}) : Tensor();
  for (int64_t i = 0; i < x.size(0); ++i) {
    const int64_t number = numbers[i].item<int64_t>();
    const Image& image = images_[size_t(image_of(number))];
    calls.sums.emplace_back();
    double rest = 1, largest_rest = 1;
    Tensor rest_of_places;
    for (size_t k = 0; number >= 0 && k < image.pieces.size(); ++k) {
      const Piece& p = image.pieces[k];
      const Tensor mask = regions.defined() ? regions.narrow(0, int64_t(k), 1) : Tensor();
      calls.add(p.weight, mask, i, p.rows[size_t(step)]);
      if (mask.defined()) rest_of_places = (rest_of_places.defined() ? rest_of_places : at::ones_like(mask)) - mask * p.weight;
      rest -= p.weight;
    }
    if (number >= 0) largest_rest = rest_of_places.defined() ? rest_of_places.abs().max().item<double>() : std::abs(rest);
    if (rest_of_places.defined() && largest_rest > 1e-6 && !encoded_.null)
      throw ConfigError("the regions of the prompts leave places out, and the model has no unconditional estimate for them");
    if (number < 0 || (largest_rest > 1e-9 && encoded_.null))
      calls.add_null(rest_of_places.defined() ? 1 : rest, rest_of_places, i,
                     (number < -count ? image.empty : image.negative)[size_t(step)]);
  }
  Condition with = encoded_;
  with.null = nullptr;
  const Condition kept = calls.rows.empty() ? Condition{} : with.select(at::tensor(calls.rows)),
                  nulls = calls.null_rows.empty() ? Condition{} : encoded_.null->select(at::tensor(calls.null_rows));
  Condition all = calls.rows.empty() ? nulls : calls.null_rows.empty() ? kept : concat(nulls, kept);
  std::vector<int64_t> images;  // of each row, as controls number them
  for (const int64_t i : calls.rows_of_x()) {
    const int64_t image = first_ + image_of(numbers[i].item<int64_t>());
    images.push_back(images.size() < calls.null_x.size() ? -1 - image : image);
  }
  all.plan = at::tensor(images);
  const Estimate d = inner.denoise(x.index_select(0, at::tensor(calls.rows_of_x()).to(x.device())), sigma, all);
  Estimate out;
  out.x0 = calls.summed(d.x0);
  if (d.variance.defined()) out.variance = calls.summed(d.variance);
  return out;
}

std::shared_ptr<const Denoiser> following_plan(std::shared_ptr<const Denoiser> inner) {
  return std::make_shared<PlanFollower>(std::move(inner));
}

void follow(std::shared_ptr<const PromptPlan> plan) {
  if (plan) RunMemory::current()->of<std::shared_ptr<const PromptPlan>>(&key) = std::move(plan);
}

Tensor regions_of(const std::vector<std::string>& masks, const std::vector<Annotation>& images, const ImageShape& shape) {
  constexpr auto name = "sample.prompts.regions";
  if (masks.empty()) return {};
  for (const Annotation& image : images)
    if (const size_t parts = text::prompts_between_ands(image.caption).size(); parts != masks.size())
      throw ConfigError(fmt::format("{}: {} for {} joined by AND in {}; one for each, 'all' for everywhere", name, masks.size(),
                                    counted(parts, "part"), in_quotes(image.caption)));
  std::vector<Tensor> all;
  for (const std::string& file : masks) {
    if (file != "all" && !std::filesystem::is_regular_file(file)) {
      const std::string near = file_hint(file);
      throw ConfigError(
          fmt::format("{}: there is no file '{}'{}", name, file, near.empty() ? "; a region is the file of a mask, or 'all'" : near));
    }
    all.push_back(file == "all" ? at::ones({1, 1, shape.height, shape.width}) : control_mask(file, shape.height, shape.width));
  }
  return at::cat(all);
}

bool changes(const std::vector<Annotation>& images, int64_t steps) {
  const auto moves = [&](const std::string& prompt) {
    for (int64_t s = 0; s < steps; ++s)
      if (text::prompt_at(prompt, s, steps) != prompt) return true;
    const std::vector<text::PromptPiece> pieces = text::prompts_between_ands(prompt);
    return pieces.size() > 1 || pieces[0].text != prompt;
  };
  return std::any_of(images.begin(), images.end(), [&](const Annotation& a) { return moves(a.caption) || moves(a.negative); });
}

}  // namespace brume
