// A class label as condition, replaced by a null class with some probability while training (Ho & Salimans 2022), so that the
// same network gives the unconditional estimate as well.
//
// The class is a row of the network's own class embedding, which every block adds (Dhariwal & Nichol 2021), or, with `context_width`, a
// token that the network attends to (Rombach et al. 2022, sec. 3.3, as their models of ImageNet have it):
//
//   context = embedding[class],   [B, 1, context_width]
//
// With `keep`, the null condition of a `composite` keeps the class and leaves out the rest, for networks that were never trained without a
// class.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/rand.h>
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/core/conditioner.h"
#include "brume/core/rows.h"
#include "brume/nn/blocks/layers.h"

namespace brume::plugins {
namespace {

struct ClassLabelOptions {
  int64_t classes = 10, context_width = 0;
  double dropout = 0.1;
  bool kept = false;  ///< in the null condition
  void declare(Fields& f) {
    f.field("classes", classes, "number of classes", at_least(1));
    f.field("dropout", dropout, "probability of the null class while training; 0 = no null class, so no cfg", within(0, 1));
    f.field("context_width", context_width,
            "of a token that the class becomes, for networks that attend to tokens; 0 = a row of the network's class embedding",
            within(0, 8192));
    f.field("keep", kept, "the null condition keeps the class, so that cfg is of the other conditions");
    f.require(!kept || dropout == 0, "dropout", "must be 0 if the null condition keeps the class");
  }
  bool has_null() const { return kept || dropout > 0; }
  int64_t rows() const { return classes + (dropout > 0 ? 1 : 0); }
};

class Labels final : public ConditionEncoder {
 public:
  Labels(const ClassLabelOptions& o, uint64_t seed) : o_(o), build_(seed) {
    if (o.context_width > 0) token_ = build_.embedding("embedding", o.rows(), o.context_width);
  }

  Condition encode(const ConditionRequest& request) const override {
    const Tensor ids = ids_of(request), null = o_.kept ? ids : at::full_like(ids, o_.classes);
    if (o_.dropout > 0 && request.dropout()) {
      const Tensor draws =
          draw_rows(ids.size(0), [&](int64_t n) { return at::rand({n}, *request.dropout(), at::TensorOptions().dtype(at::kDouble)); });
      ids.masked_fill_(draws < o_.dropout, o_.classes);
    }
    Condition condition = condition_of(ids, request);
    if (o_.has_null()) condition.null = std::make_shared<Condition>(condition_of(null, request));
    return condition;
  }
  std::vector<Weight> weights() const override { return build_.weights(); }

 private:
  Tensor ids_of(const ConditionRequest& request) const {
    const int64_t count = int64_t(request.annotations.size());
    Tensor ids = at::empty({count}, at::kLong);
    int64_t* id = ids.data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      id[i] = request.annotations[size_t(i)].label;
      if (id[i] < 0 || id[i] >= o_.classes)
        throw ConfigError(id[i] < 0 ? fmt::format("image {} has no class, and this model needs one (0 to {})", i, o_.classes - 1)
                                    : fmt::format("class {} is out of range: this model has {}, 0 to {}", id[i],
                                                  counted(o_.classes, "class"), o_.classes - 1));
    }
    return ids;
  }
  Condition condition_of(const Tensor& ids, const ConditionRequest& request) const {
    Condition condition;
    if (o_.context_width == 0)
      condition.classes = ids;
    else
      condition.context = token_(ids.to(request.device)).to(request.dtype).unsqueeze(1);
    return condition;
  }

  ClassLabelOptions o_;
  nn::Builder build_;
  nn::Embedding token_;
};

class ClassLabel final : public Conditioner {
 public:
  using Options = ClassLabelOptions;
  explicit ClassLabel(const Options& o) : o_(o) {}
  ConditionerTraits traits() const override {
    return {.classes = o_.classes,
            .class_rows = o_.context_width > 0 ? 0 : o_.rows(),
            .context_width = o_.context_width,
            .has_null = o_.has_null()};
  }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const override {
    return std::make_shared<Labels>(o_, origin.seed);
  }

 private:
  Options o_;
};

}  // namespace

void register_conditioner_class_label(Registry& r) { r.add<Conditioner, ClassLabel>("class_label", "a class, with a null class for cfg"); }

}  // namespace brume::plugins
