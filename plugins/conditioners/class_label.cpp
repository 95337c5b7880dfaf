// A class label as condition, replaced by a null class with some probability while training (Ho & Salimans 2022), so that the
// same network gives the unconditional estimate as well.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/rand.h>
#include <fmt/format.h>

#include "config/registry.h"
#include "core/conditioner.h"

namespace brume::plugins {
namespace {

struct ClassLabelOptions {
  int64_t classes = 10;
  double dropout = 0.1;
  void declare(Fields& f) {
    f.field("classes", classes, "number of classes", at_least(1));
    f.field("dropout", dropout, "probability of the null class while training; 0 = no null class, so no cfg", within(0, 1));
  }
};

class Labels final : public ConditionEncoder {
 public:
  explicit Labels(const ClassLabelOptions& o) : o_(o) {}
  Condition encode(const ConditionRequest& request) const override {
    const int64_t count = int64_t(request.annotations.size());
    const Tensor ids = at::empty({count}, at::kLong);
    int64_t* id = ids.data_ptr<int64_t>();
    for (int64_t i = 0; i < count; ++i) {
      id[i] = request.annotations[size_t(i)].label;
      if (id[i] < 0 || id[i] >= o_.classes)
        throw ConfigError(
            id[i] < 0 ? fmt::format("image {} has no class, and this model needs one (0 to {})", i, o_.classes - 1)
                      : fmt::format("class {} is out of range: this model has {} classes, 0 to {}", id[i], o_.classes, o_.classes - 1));
    }
    Condition condition;
    condition.classes = ids;
    if (o_.dropout == 0) return condition;
    condition.null = std::make_shared<Condition>(Condition{.classes = at::full_like(ids, o_.classes)});
    if (!request.dropout) return condition;
    const Tensor draws = at::rand({count}, *request.dropout, at::TensorOptions().dtype(at::kDouble));
    for (int64_t i = 0; i < count; ++i)
      if (draws.data_ptr<double>()[i] < o_.dropout) id[i] = o_.classes;
    return condition;
  }

 private:
  ClassLabelOptions o_;
};

class ClassLabel final : public Conditioner {
 public:
  using Options = ClassLabelOptions;
  explicit ClassLabel(const Options& o) : o_(o) {}
  int64_t class_rows() const override { return o_.classes + (has_null() ? 1 : 0); }
  int64_t classes() const override { return o_.classes; }
  bool has_null() const override { return o_.dropout > 0; }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override { return std::make_shared<Labels>(o_); }

 private:
  Options o_;
};

}  // namespace

void register_conditioner_class_label(Registry& r) { r.add<Conditioner, ClassLabel>("class_label", "a class, with a null class for cfg"); }

}  // namespace brume::plugins
