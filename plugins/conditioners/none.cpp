// An unconditional model.
#include "config/registry.h"
#include "core/conditioner.h"

namespace brume::plugins {
namespace {

class None final : public Conditioner {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit None(const Options&) {}
  int64_t class_rows() const override { return 0; }
  int64_t classes() const override { return 0; }
  bool has_null() const override { return false; }
  Condition encode(const std::vector<Annotation>&, at::Generator*) const override { return {}; }
};

}  // namespace

void register_conditioner_none(Registry& r) { r.add<Conditioner, None>("none", "no condition"); }

}  // namespace brume::plugins
