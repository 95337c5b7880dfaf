#pragma once
// Opening what a command samples from: a checkpoint, or a configuration whose network has no weights.
#include <memory>
#include <string>

#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/classifier_pipeline.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/pipeline.h"
#include "brume/interop/import/import.h"
#include "brume/train/options.h"
#include "commands/program.h"

namespace brume::tools {

/// How it is to be sampled, where that differs from the source's own `sample:` section. Empty = as it stands there.
struct SampleSettings {
  std::string steps, sampler, spacing, noise_order, tile;
  std::string cfg;                            ///< the scale of the guidance `cfg`, which is put in front where there is none
  std::vector<std::string> lora, embeddings;  ///< in the place of those of the source
  std::string prompt_weights, long_prompts, clip_skip;
  std::string classifier, classifier_scale;  ///< the guidance `classifier`, which is put before what clips where there is none
  std::vector<std::string> import;           ///< KEY=VALUE of a model of another program
  bool inpaint = false;                      ///< the guidance `inpaint` is put at the end where there is none
  Overrides overrides;
  /// --steps, --sampler, --spacing, --noise-order, what prompts are read by, and the overrides; the guidances are the command's.
  void add_to(CLI::App& command);
};

/// KEY=VALUE, each of them; `option` names it in messages.
ImportOptions import_options(const std::string& option, const std::vector<std::string>& assignments);

/// The model.safetensors of a training where `path` is its directory; else `path`. Throws ConfigError where a training has written none.
std::string model_file(const std::string& path);

class SampleSource {
 public:
  /// `path`: model.safetensors, the directory of a training, a YAML file, or a model of another program (interop/import/import.h). Throws
  /// ConfigError where it is none of them, and where it is a classifier. `import`: KEY=VALUE, what a model of another program does not say
  /// of itself.
  explicit SampleSource(const std::string& path, const std::vector<std::string>& import = {});
  /// The configuration with these settings laid over it; an override that contradicts a checkpoint's model is refused.
  Config configuration(Program& program, const SampleSettings& settings) const;
  /// The same once for each of these scales of cfg, named after them; one run as configured where there are none. `config`, of the last.
  std::vector<std::pair<std::string, SampleOptions>> runs(Program& program, const SampleSettings& settings,
                                                          const std::vector<std::string>& scales, Config& config) const;
  /// The model with its weights, changed by those of `config.sample.lora`, frozen.
  std::unique_ptr<Pipeline> load(const Program& program, const Config& config) const;
  /// Opens what its guidances name, as `model` was; relative paths are looked for beside the source, then in the current folder.
  ModelFiles others(const Program& program, const Pipeline& model) const;

 private:
  std::string path_;
  bool yaml_;
  Value root_;
  StoredModel stored_;  ///< of a checkpoint
};

/// Whether a guidance of this run uses the unconditional estimate, in whose place a negative prompt stands.
bool steers_from_null(const Config& config);

/// How far a run has come, in image steps (images times `steps`), `step` being one of the batch of `batch` images from `first` on.
/// Samplers with steps of their own move by the share of them that is known.
int64_t image_steps(int64_t first, int64_t batch, int64_t steps, const Step& step);

/// A classifier out of its model.safetensors, frozen. --precision (fp32 where not given), --device and --threads count.
std::unique_ptr<ClassifierPipeline> open_classifier(Program& program, const std::string& path, const Overrides& overrides);

}  // namespace brume::tools
