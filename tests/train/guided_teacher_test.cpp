// The option `teacher_cfg` of every objective with a teacher: a guided teacher teaches what a model of the guided estimates does.
#include "brume/core/guidance.h"
#include "brume/diffusion/pipeline.h"
#include "brume/train/trainer.h"
#include "brume/weights/weights_file.h"
#include "loaded.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

constexpr const char* tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4, zero_init: false}
  conditioner: {type: class_label, classes: 3}
  noise: cosine
  parameterization: v
train:
  data: {type: shapes, forms: [circle, square, cross], colours: [red]}
  batch: 4
  steps: 3
  preview: {count: 0}
compute: {precision: fp32}
)";

/// A model that is every teacher, with guidance of its own or without.
class OneTeacher final : public ModelSource {
 public:
  OneTeacher(const Pipeline& pipeline, const std::string& guidance) : pipeline_(pipeline), denoiser_(pipeline.denoiser()) {
    if (guidance.empty()) return;
    const ModelOptions& o = pipeline.options();
    denoiser_ = make<Guidance>(guidance)->wrap(denoiser_, {o.noise, *this, o.parameterization, o.controls(), pipeline.latent()});
  }
  OtherModel model(const std::string&) const override {
    const Controls can = pipeline_.options().controls();
    return {denoiser_, pipeline_.options().noise, pipeline_.latent(), can.classes, can.has_null};
  }
  std::shared_ptr<const NoisyClassifier> classifier(const std::string&) const override { throw ConfigError("no classifier"); }

 private:
  const Pipeline& pipeline_;
  std::shared_ptr<const Denoiser> denoiser_;
};

struct Taught {
  std::string objective;
  std::vector<std::string> settings{};
};
void PrintTo(const Taught& taught, std::ostream* to) { *to << taught.objective; }

class GuidedTeachers : public testing::TestWithParam<Taught> {
 protected:
  /// Returns the weights of a student of a model with this guidance, or by the objective's own option.
  NamedTensors student(const std::string& name, const std::string& options, const std::string& guidance,
                       const std::string& conditioner = "{type: class_label, classes: 3}") {
    const Loaded master = loaded(tiny, {"model.conditioner=" + conditioner});
    const Pipeline pipeline(master.config.model, {}, 5);
    const OneTeacher models(pipeline, guidance);
    std::vector<std::string> settings = GetParam().settings;
    settings.push_back("model.conditioner=" + conditioner);
    settings.push_back("train.objective={type: " + GetParam().objective + ", teacher: t" + options + "}");
    const Loaded l = loaded(tiny, settings);
    Trainer(l.config, l.resolved, folder_.path() / name, {}, models).run(nullptr);
    return load_tensors((folder_.path() / name / "model.safetensors").string());
  }
  TempFolder folder_;
};

bool equal(const NamedTensors& a, const NamedTensors& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](const NamedTensor& x, const NamedTensor& y) {
           return x.name == y.name && x.tensor.equal(y.tensor);
         });
}

TEST_P(GuidedTeachers, TeachWhatAModelOfTheGuidedEstimatesDoes) {
  const NamedTensors by_option = student("option", ", teacher_cfg: 3", ""), by_guidance = student("guidance", "", "{type: cfg, scale: 3}"),
                     plain = student("plain", "", "");
  EXPECT_TRUE(equal(by_option, by_guidance));
  EXPECT_FALSE(equal(by_option, plain)) << "the guidance changes nothing";
}

TEST_P(GuidedTeachers, NeedAnUnconditionalEstimate) {
  const std::string no_null = "{type: class_label, classes: 3, dropout: 0}";
  const std::string error = error_of([&] { student("refused", ", teacher_cfg: 3", "", no_null); });
  EXPECT_NE(error.find("teacher_cfg: 3 needs an unconditional estimate"), std::string::npos) << error;
  EXPECT_NE(error.find("dropout: 0"), std::string::npos) << error;
}

INSTANTIATE_TEST_SUITE_P(Objectives, GuidedTeachers,
                         testing::Values(Taught{"progressive, steps: 4"}, Taught{"reflow, steps: 2"},
                                         Taught{"dmd, steps: 2, model_every: 1"}, Taught{"scm", {"model.variance=none"}},
                                         Taught{"consistency_distillation",
                                                {"model.noise={type: angle, min_signal: 0.05, max_signal: 0.999}",
                                                 "model.parameterization={type: consistency, sigma_min: 0.04476615, sigma_data: 0.5}"}}),
                         [](const auto& info) { return info.param.objective.substr(0, info.param.objective.find(',')); });

}  // namespace
}  // namespace brume::test
