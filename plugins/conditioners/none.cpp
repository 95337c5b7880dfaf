// An unconditional model.
#include "brume/config/registry.h"
#include "brume/core/conditioner.h"

namespace brume::plugins {
namespace {

class Nothing final : public ConditionEncoder {
 public:
  Condition encode(const ConditionRequest&) const override { return {}; }
};

class None final : public Conditioner {
 public:
  struct Options {
    void declare(Fields&) {}
  };
  explicit None(const Options&) {}
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin&) const override { return std::make_shared<Nothing>(); }
};

}  // namespace

void register_conditioner_none(Registry& r) { r.add<Conditioner, None>("none", "no condition"); }

}  // namespace brume::plugins
