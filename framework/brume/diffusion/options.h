#pragma once
// The sections `model:`, `classifier:`, `autoencoder:` and `sample:` of a configuration.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brume/config/fields.h"
#include "brume/core/autoencoder.h"
#include "brume/core/classifier.h"
#include "brume/core/conditioner.h"
#include "brume/core/control.h"
#include "brume/core/guidance.h"
#include "brume/core/network.h"
#include "brume/core/parameterization.h"
#include "brume/core/prompt.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"

namespace brume {

/// A ControlNet that is trained, on a model that stays as it is.
struct TrainedControlOptions {
  std::string image = "canny";    ///< what it sees of a training image
  std::vector<int64_t> widths{};  ///< ControlBranchOptions::hint_widths; empty = the paper's, as many as the latents need
  void declare(Fields& f);
};

struct ModelOptions {
  ImageShape image{3, 32, 32};
  Deferred<Autoencoder> autoencoder;
  Deferred<Network> network;
  std::shared_ptr<const Conditioner> conditioner;
  std::shared_ptr<const NoiseSchedule> noise;
  std::shared_ptr<const Parameterization> parameterization;
  LearnedVariance variance = LearnedVariance::none;
  std::vector<std::string> class_names;
  std::optional<TrainedControlOptions> control;  ///< of a training alone; a model's file has none
  void declare(Fields& f);

  Controls controls() const;
  /// Returns what the network is made for.
  Network::Context network_context(const ImageShape& latent, uint64_t seed) const;
  /// Throws ConfigError with the mistakes between the parts, found without making weights.
  void check() const;
};

/// The noise a classifier knows.
struct ClassifierNoise {
  std::shared_ptr<const NoiseSchedule> schedule;
  void declare(Fields& f);
};

struct ClassifierOptions {
  ImageShape image{3, 32, 32};
  Deferred<Classifier> network;
  int64_t classes = 10;
  std::vector<std::string> class_names;
  std::optional<ClassifierNoise> noise;  ///< absent: clean images only
  void declare(Fields& f);

  Classifier::Context network_context(uint64_t seed) const { return {.input = image, .classes = classes, .seed = seed}; }
  /// Throws ConfigError with the mistakes between the parts, found without making weights.
  void check() const;
};

/// A first stage alone.
struct AutoencoderOptions {
  ImageShape image{3, 32, 32};
  Deferred<Autoencoder> network;
  void declare(Fields& f);
  /// Throws ConfigError with the mistakes that are found without making weights.
  void check() const { network.check({image}); }
};

enum class NoiseOrder { per_image, batch, brownian, per_seed };

/// Whose random numbers the orders `batch` and `per_seed` take: PyTorch's on the processor, or on CUDA (core/foreign_noise.h).
enum class NoiseGenerator { cpu, cuda };

/// How prompts are read, if that is not as the model was trained.
struct PromptOptions {
  bool weights = false, chunks = false;
  bool changes = false;  ///< [a:b:0.5], [a|b] and AND
  Emphasis emphasis = Emphasis::mean;
  bool absolute = false;
  int64_t comma_tokens = 0;
  std::vector<std::string> regions;  ///< FILE or "all": where each part of a prompt joined by AND counts, white; none: everywhere
  std::optional<int64_t> clip_skip;
  std::vector<int64_t> clip_skips;      ///< the same in equal shares of the steps
  std::vector<std::string> embeddings;  ///< FILE, or FILE:WORD
  std::vector<Word> words{};            ///< of a program, in addition to those
  void declare(Fields& f);
  bool any() const { return weights || chunks || clip_skip || !clip_skips.empty() || !embeddings.empty(); }
  /// Returns it with the embeddings out of their files, one for each of `clip_skips`, or one; throws ConfigError if a file holds none.
  std::vector<PromptReading> readings() const;
};
/// How widely the noise is spread that a run starts from: sqrt(1 + sigma^2) and the like, as the schedule has it, or sigma alone;
/// schedule_at_max: the schedule's if a run begins at its largest sigma, else sigma.
enum class StartStd { schedule, sigma, schedule_at_max };
/// The timestep given to the network at a sigma between two training times. nearest_step rounds at the sigmas of the spacing, and not at
/// those that a sampler adds between them.
enum class TimestepRounding { exact, nearest, below, nearest_step };

struct SampleOptions {
  std::shared_ptr<const Sampler> sampler;
  std::shared_ptr<const Spacing> spacing;
  int64_t steps = 50;
  std::vector<std::shared_ptr<const Guidance>> guidance;
  std::vector<std::shared_ptr<const Control>> control;
  NoiseOrder noise_order = NoiseOrder::per_image;
  NoiseGenerator noise_generator = NoiseGenerator::cpu;
  PromptOptions prompts;
  std::vector<std::string> lora;  ///< FILE, or FILE:STRENGTH: added to the weights when they are loaded (interop/lora.h)
  StartStd start = StartStd::schedule;
  TimestepRounding timestep_rounding = TimestepRounding::exact;
  int64_t tile = 0;  ///< side in pixels of the pieces an image is decoded in; 0 = as a whole
  void declare(Fields& f);
  /// Throws ConfigError naming everything that the sampler and the guidances ask of the model and it does not have.
  void check(const ModelOptions& model) const;

 private:
  void check_guidance(const Controls& controls, std::vector<Problem>& problems) const;
};

}  // namespace brume
