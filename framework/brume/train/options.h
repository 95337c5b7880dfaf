#pragma once
// The section `train:`, and a whole configuration.
#include <map>
#include <optional>

#include "brume/core/features.h"
#include "brume/core/objective.h"
#include "brume/core/optimizer.h"
#include "brume/core/perceptual_loss.h"
#include "brume/diffusion/configuration.h"

namespace brume {
class Adapter;

struct EmaOptions {
  enum class Type { exponential, power };
  enum class Warmup { none, ratio, power };
  Type type = Type::exponential;
  std::vector<double> std{0.05, 0.1};  ///< of `power`: lengths of the averages, over that of the training; the first is the model's
  double decay = 0.9999;
  Warmup warmup = Warmup::ratio;
  double inv_gamma = 1, power = 2.0 / 3;
  void declare(Fields& f);
};

struct PreviewOptions {
  int64_t every = 1000, count = 16, columns = 0, steps = 20;
  bool base = false;
  std::vector<std::string> prompts;
  void declare(Fields& f);
};

/// Images that are not trained on: what the averaged weights are tried on at checkpoints.
struct TestOptions {
  Deferred<Dataset> data;
  void declare(Fields& f);
};

/// Images that are not trained on: what the loss of a diffusion model is measured on, by noise level, at checkpoints.
struct ValidationOptions {
  Deferred<Dataset> data;
  int64_t images = 256, levels = 8;
  void declare(Fields& f);
};

/// The patch discriminator that an autoencoder is trained against.
struct AdversarialOptions {
  int64_t start = 0, channels = 64, layers = 3;
  double weight = 0.5;
  void declare(Fields& f);
};

/// How that discriminator is trained apart from the autoencoder.
struct DiscriminatorOptions {
  Deferred<Optimizer> optimizer;
  int64_t every = 1;
  void declare(Fields& f);
};

/// What an autoencoder minimises in addition to the penalty of its network.
struct ReconstructionOptions {
  enum class Pixel { l1, l2 };
  Pixel pixel = Pixel::l1;
  Deferred<PerceptualLoss> perceptual_loss;
  double perceptual_weight = 1;
  std::optional<AdversarialOptions> adversarial;
  void declare(Fields& f);
};

/// How an autoencoder's latents are brought to unit variance.
struct LatentOptions {
  int64_t images = 512;
  bool center = false;
  void declare(Fields& f);
};

/// What the features of a block of the network are drawn towards, see train/alignment.h.
struct AlignmentOptions {
  Deferred<Features> features;
  std::string block;  ///< a tap point; empty: the last of the first third
  double weight = 0.5;
  int64_t width = 2048;
  void declare(Fields& f);
};

/// DreamBooth's images of the subject's class.
struct PriorOptions {
  std::string class_prompt;
  std::filesystem::path class_data;
  int64_t class_images = 100;
  double loss_weight = 1;
  void declare(Fields& f);
};

/// Which checkpoints stay in RUN/checkpoints.
struct KeepOptions {
  int64_t last = 1;  ///< the newest so many; 1 = those of the run directory alone
  int64_t every = 0;
  std::string best;  ///< "max FIGURE" or "min FIGURE"
  bool any() const { return last > 1 || every > 0 || !best.empty(); }
};

/// Weights with their own learning rate and weight decay.
struct WeightGroupOptions {
  std::string match;                       ///< a pattern of names
  std::optional<double> lr, weight_decay;  ///< absent: the optimizer's
  void declare(Fields& f);
};

/// What the weights of a model become in one of other shapes.
struct AdoptionOptions {
  enum class NewRows { mean, zero, random };
  enum class InputChannels { same, pad };
  enum class Head { same, fresh };
  std::map<std::string, std::string> classes{};  ///< class of the source, by name or number: class of the training
  NewRows new_rows = NewRows::mean;              ///< of classes that no class of the source becomes
  InputChannels input_channels = InputChannels::same;
  Head head = Head::same;
  std::vector<std::string> left_out{};  ///< patterns of weights of the source that the model has no place for
  std::vector<std::string> added{};     ///< patterns of weights of the model that the source lacks, or has in another shape
  void declare(Fields& f);
};

struct TrainOptions {
  enum class Task { diffusion, classifier, autoencoder, any };
  std::filesystem::path from;  ///< a model whose weights it starts with; empty: drawn from the seed
  std::optional<AdoptionOptions> adopt;
  std::vector<std::string> train_only;  ///< patterns of the names of weights that are trained; empty: all
  std::vector<std::string> freeze;      ///< patterns of the names of weights that stay as they are
  std::vector<WeightGroupOptions> groups;
  std::vector<std::shared_ptr<const Adapter>> adapters;  ///< of diffusion; if there are any, they alone are trained
  std::vector<std::string> triggers;                     ///< words that call what adapters learn, for their files
  Deferred<Dataset> data;
  std::optional<PriorOptions> prior;                  ///< of diffusion
  std::filesystem::path cache;                        ///< of diffusion: a folder; empty: nothing is kept
  std::shared_ptr<const Objective> objective;         ///< of diffusion
  double label_smoothing = 0;                         ///< of a classifier
  std::optional<AlignmentOptions> align;              ///< of diffusion
  std::optional<ValidationOptions> validation;        ///< of diffusion
  std::optional<TestOptions> test;                    ///< of a classifier or an autoencoder
  ReconstructionOptions loss;                         ///< of an autoencoder
  std::optional<DiscriminatorOptions> discriminator;  ///< of an autoencoder; absent: `optimizer` serves both
  LatentOptions latents;                              ///< of an autoencoder
  Deferred<Optimizer> optimizer;
  int64_t batch = 64, steps = 10000, seed = 0, workers = 2;
  std::optional<double> epochs;  ///< passes over the data, instead of `steps`
  int64_t accumulate = 1;        ///< parts of a batch that each process computes
  enum class Shard { none, optimizer };
  Shard shard = Shard::none;  ///< what each process keeps a part of, instead of all
  int64_t timeout = 1800;     ///< seconds that processes wait for one that takes no part in a step
  std::string stop_after;     ///< as seconds_of() reads it; empty: trains to the last step
  EmaOptions ema;
  PreviewOptions preview;                   ///< of all but a classifier
  std::vector<std::string> log{"metrics"};  ///< words of log_words()
  int64_t log_every = 50, checkpoint_every = 1000;
  KeepOptions keep;
  /// Declares the parameters of one task; those of all for `any` (the schema).
  void declare(Fields& f, Task task);
};

/// Returns the seconds of "90s", "15m", "3h" or "1.5d". Throws ConfigError for any other text.
double seconds_of(const std::string& duration);

/// A whole configuration: a model and how it is trained.
struct Config : ModelConfig {
  std::optional<TrainOptions> train;
  void declare(Fields& f);
  /// Throws ConfigError for mistakes between the parts, found without touching data or weights.
  void check() const;
};

/// Reads and checks a whole configuration. `resolved` receives every key with the value in force. Libraries named under
/// `plugins:` are loaded first.
Config read_configuration(Registry& registry, const Value& root, Value* resolved = nullptr);

/// Returns the same for a configuration out of `file`, a checkpoint, that was made with `libraries`: data never loads code, so if
/// reading fails for want of one, the error says which to load.
Config read_stored_configuration(Registry& registry, const Value& root, const std::string& file, const std::vector<std::string>& libraries,
                                 Value* resolved = nullptr);

}  // namespace brume
