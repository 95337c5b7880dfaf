#include "brume/train/trainer.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "brume/config/counted.h"
#include "brume/config/foreign.h"
#include "brume/config/name_patterns.h"
#include "brume/config/out_of_memory.h"
#include "brume/config/yaml.h"
#include "brume/core/interruption.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/pipeline.h"
#include "brume/distributed/world.h"
#include "brume/files/atomic_file.h"
#include "brume/nn/ops/memory_pool.h"
#include "brume/train/accumulation.h"
#include "brume/train/adapted_learner.h"
#include "brume/train/adoption.h"
#include "brume/train/checkpoints.h"
#include "brume/train/controlled_learner.h"
#include "brume/train/ema_snapshots.h"
#include "brume/train/loss_trend.h"
#include "brume/train/memory_advice.h"
#include "brume/train/metrics_file.h"
#include "brume/train/prior_preservation.h"
#include "brume/train/run_log.h"
#include "brume/train/source.h"
#include "brume/weights/model_metadata.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

/// Streams of random numbers under the training's seed.
enum Stream : uint64_t { weights = 20, order = 21, steps = 22, adapters = 23 };

constexpr int64_t most_bad_steps = 20;  ///< updates in a row whose gradient is not finite

void refuse_held(const fs::path& directory) {
  if (fs::exists(directory / "training.safetensors"))
    throw ConfigError(fmt::format("{}: holds a training already; resume it, overwrite it, or name another directory", directory.string()));
}

/// Makes the directory. `inner`: a folder in it that is needed, or nothing.
void prepare_directory(const fs::path& directory, const fs::path& inner) {
  std::error_code error;
  fs::create_directories(inner.empty() ? directory : directory / inner, error);
  if (error) throw ConfigError(fmt::format("{}: cannot be made: {}", directory.string(), error.message()));
}

/// Removes what an earlier training left, and nothing else.
void remove_training(const fs::path& directory) {
  for (const char* name : {"training.safetensors", "model.safetensors", "metrics.jsonl", "config.yaml", event_file_name})
    fs::remove(directory / name);
  for (const std::string& part : parts_in(directory)) fs::remove(directory / part);
  remove_checkpoints(directory);
  remove_snapshots(directory);
  if (!fs::is_directory(directory / "samples")) return;
  std::vector<fs::path> pictures;
  for (const auto& entry : fs::directory_iterator(directory / "samples"))
    if (const std::string name = entry.path().filename().string();
        name == base_preview || name == control_preview || (name.starts_with("step_") && name.ends_with(".png")))
      pictures.push_back(entry.path());
  for (const fs::path& picture : pictures) fs::remove(picture);
}

std::string gathered_before(const fs::path& training_file) {
  ModelMetadata::Entries entries;
  load_tensors(training_file.string(), &entries);
  return entries[metadata_key::gathered];
}

}  // namespace

Trainer::Trainer(const Config& config, Value resolved, fs::path directory, const fs::path& resume_from, const ModelSource& models,
                 bool overwrite, std::shared_ptr<World> world, const std::function<bool(int64_t, int64_t)>& preparing)
    : world_(world ? std::move(world) : world_of_one()), config_(config), resolved_(std::move(resolved)), directory_(std::move(directory)) {
  const bool fresh = resume_from.empty();
  if (world_->leads() && fs::is_directory(directory_)) take_directory();
  if (world_->leads() && fresh && !overwrite) refuse_held(directory_);
  divide(resume_from);
  const TrainOptions& t = *config_.train;
  const uint64_t seed = uint64_t(t.seed);
  const bool begun = !fresh || !t.from.empty();  // weights are copied in
  const bool steers = config_.model.control.has_value();
  const bool adapts = !t.adapters.empty() || steers;  // the source's weights are no part of a training file then
  const StoredModel source = (fresh && begun) || adapts ? open_any(t.from.string()) : StoredModel();
  data_ = labelled(config_, resolved_, training_images(config_, fresh ? &source : nullptr, models, compute_, *world_, preparing),
                   fresh ? sections(source.card) : training_configuration(resume_from));
  set_steps_of_epochs(config_, resolved_, *data_);
  const Files stored = fresh ? source.card.files : files_in(load_tensors(resume_from.string()));
  learner_ = make_learner(config_, resolved_, compute_, data_,
                          {mix_seed(seed, Stream::weights), models, begun ? &stored : nullptr, examples(config_, *data_)});
  if ((fresh && begun) || adapts) take_over(source);
  if (adapts) learner_ = (steers ? controlled : adapted)(std::move(learner_), config_, source, mix_seed(seed, Stream::adapters));
  std::vector<TrainedModule> modules = learner_->modules();
  several_ = modules.size() > 1;
  trend_ = std::make_unique<LossTrend>();
  freeze(modules.front().weights);
  modules.front().own = own_settings(t.groups, modules.front().weights);
  model_ = modules.front().weights;
  optimization_ = std::make_unique<Optimization>(std::move(modules), t.steps, *world_, t.shard == TrainOptions::Shard::optimizer);
  if (!fresh) restore(resume_from);
  continues_ = !fresh && fs::weakly_canonical(run_of(resume_from)) == fs::weakly_canonical(directory_);
  for (Fixed& fixed : fixed_) fixed.value = fixed.weight.clone();
  const int64_t workers = t.workers == 0 ? 0 : std::max<int64_t>(1, t.workers / world_->local_size());
  loader_ = std::make_unique<Loader>(data_, config_.image(), t.batch, mix_seed(seed, Stream::order), step_, workers, rows());
  compare_processes();
  optimization_->gather();
  if (!world_->leads()) return;
  open_directory(fresh, overwrite);
  write_file((directory_ / "config.yaml").string(), dump_yaml(resolved_));
  log_ = std::make_unique<RunLog>(directory_, t.log, resolved_, step_);
  if (!fresh) log_->note(gathered_before(resume_from));
}

void Trainer::open_directory(bool fresh, bool overwrite) {
  check_room(directory_, checkpoint_size(), *config_.train, step_);
  if (fresh && overwrite) remove_training(directory_);
  prepare_directory(directory_, config_.classifier ? "" : "samples");
  if (lock_.held()) return;
  take_directory();
  if (fresh && !overwrite) refuse_held(directory_);
}

Trainer::~Trainer() = default;

void Trainer::take_directory() {
  lock_ = lock_run(directory_);
  clean_run(directory_);
}

void Trainer::take_over(const StoredModel& source) {
  const TrainOptions& t = *config_.train;
  const std::vector<Weight> weights = learner_->weights();
  if (!t.adopt) return load_weights(t.from.string(), source.tensors, weights);
  const Pipeline* pipeline = learner_->pipeline();
  const ClassRows before = class_rows(sections(source.card)), after = class_rows(resolved_);
  load_weights(t.from.string(),
               adopt(t.from.string(), source.tensors, weights, *t.adopt, before, after, pipeline ? &pipeline->network() : nullptr),
               weights);
}

void Trainer::freeze(std::vector<Weight>& weights) {
  const TrainOptions& t = *config_.train;
  const std::vector<std::string> names = names_of(weights);
  const std::set<std::string> frozen = matching(t.freeze, names, "train.freeze"), only = matching(t.train_only, names, "train.train_only");
  for (Weight& w : weights) {
    if (!frozen.contains(w.name) && (t.train_only.empty() || only.contains(w.name))) continue;
    if (!w.trainable) fixed_.push_back({w.tensor, {}});
    w.trainable = false;
  }
  if (std::none_of(weights.begin(), weights.end(), [](const Weight& w) { return w.trainable; }))
    throw ConfigError(fmt::format("{} leaves no weight to train", t.train_only.empty() ? "train.freeze" : "train.train_only"));
}

std::optional<double> Trainer::train_step(Window& window, const TrainCallbacks& callbacks) {
  const auto asked = std::chrono::steady_clock::now();
  const Batch batch = loader_->next();
  if (log_) log_->count(config_.train->batch, std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count());
  note_unread(batch, window);
  at::Generator random = at::detail::createCPUGenerator(mix_seed(uint64_t(config_.train->seed), Stream::steps, uint64_t(step_)));
  const at::AutoGradMode with_grad(true);
  BatchFigures figures = backward(*learner_, batch, step_, config_.train->accumulate, *world_, random, optimization_->gradients());
  optimization_->gradients().finish();
  agree(figures, window, callbacks);
  updating_ = true;
  const bool finite = optimization_->update(step_);
  const bool moved = optimization_->updated_model() && learner_->updated(step_, random);
  if (moved)
    for (const Fixed& fixed : fixed_) Tensor(fixed.weight).copy_(fixed.value);
  optimization_->average(step_, moved);
  updating_ = false;
  if (finite) {
    bad_steps_ = 0;
  } else if (++bad_steps_ >= most_bad_steps) {
    throw ConfigError(
        fmt::format("the gradient has not been finite for {} (now {}); a lower train.optimizer.lr may help, the last "
                    "checkpoint is untouched",
                    counted(bad_steps_, "step"), step_));
  }
  ++step_;
  if (!std::isfinite(figures.loss) || !finite) {
    ++window.skipped;
    return {};
  }
  Metrics& sums = window.sums;
  if (sums.empty()) sums.emplace_back("loss", 0);
  sums[0].second += figures.loss;
  for (size_t i = 0; i < figures.metrics.size(); ++i) {
    if (sums.size() == i + 1) sums.emplace_back(figures.metrics[i].first, 0);
    sums[i + 1].second += figures.metrics[i].second;
  }
  ++window.steps;
  return figures.loss;
}

namespace {
/// Releases a lock where it ends.
struct LockedUntilEnd {
  Lock& lock;
  ~LockedUntilEnd() { lock.release(); }
};
}  // namespace

bool Trainer::run(const TrainCallbacks& callbacks) {
  const nn::MemoryPoolScope keep;
  std::optional<WarningScope> warnings;
  if (callbacks.warn) warnings.emplace(callbacks.warn);
  if (world_->leads() && !lock_.held()) lock_ = lock_run(directory_);
  const LockedUntilEnd locked{lock_};
  const StopScope whole({});  // a step, and a checkpoint, is not left in its middle
  try {
    const bool ended = run_steps(callbacks);
    release_checkpoint();
    return ended;
  } catch (const ConfigError& e) {
    const std::string failed = save_before_leaving();
    if (failed.empty()) throw;
    throw ConfigError(fmt::format("{}; {}", e.what(), failed));
  } catch (const std::exception& e) {
    if (const std::string failed = save_before_leaving(); !failed.empty()) warn(failed);
    const auto asked = out_of_memory(e);
    if (!asked || updating_) throw;
    throw ConfigError(memory_advice(*asked, *learner_, *data_, config_));
  }
}

std::string Trainer::save_before_leaving() {
  const bool diverged = bad_steps_ >= most_bad_steps && fs::exists(directory_ / "training.safetensors");
  if (saved_ == step_ || lost_ || diverged || !world_->leads()) return "";
  if (config_.train->shard != TrainOptions::Shard::none && world_->size() > 1) return "";  // parts of the state are elsewhere
  if (updating_) return fmt::format("the training could not be saved: step {} was left in its middle", step_ + 1);
  try {
    save();
    return "";
  } catch (const std::exception& e) {
    return fmt::format("the training could not be saved at step {}: {}", step_, brief(e));
  }
}

void Trainer::attempt(const char* what, const TrainCallbacks& callbacks, const std::function<void()>& run) {
  const StopScope stop(callbacks.stop);
  try {
    run();
  } catch (const Interrupted&) {
    warn(fmt::format("step {}: the {} was interrupted", step_, what));
  } catch (const std::exception& e) {
    warn(fmt::format("step {}: the {} failed, and the training goes on: {}", step_, what, brief(e)));
  }
}

void Trainer::checkpoint(const TrainCallbacks& callbacks) {
  const KeepOptions& keep = config_.train->keep;
  hold_if_loss_grows();
  save_together();
  if (!world_->leads()) return;
  if (config_.train->ema.type == EmaOptions::Type::power) {
    ModelCard card = learner_->card(optimization_->averaged());
    card.step = step_;
    save_snapshots(directory_, config_.train->ema, optimization_->model_averages(), card);
  }
  if (keep.any()) keep_checkpoint(directory_, step_);
  attempt("test", callbacks, [&] { test(callbacks); });
  if (keep.any()) prune_checkpoints(directory_, step_, keep);
}

void Trainer::complete(const TrainCallbacks& callbacks) {
  const TrainOptions& t = *config_.train;
  if (due(t.checkpoint_every)) {
    if (t.keep.any() && !is_kept(directory_, step_)) keep_checkpoint(directory_, step_);
    if (!has_test(directory_ / "metrics.jsonl", step_)) attempt("test", callbacks, [&] { test(callbacks); });
    if (t.keep.any()) prune_checkpoints(directory_, step_, t.keep);
  }
  if (due(t.preview.every) && !fs::exists(preview_file())) attempt("sample grid", callbacks, [&] { preview(); });
}

bool Trainer::run_steps(const TrainCallbacks& callbacks) {
  const TrainOptions& t = *config_.train;
  if (!t.stop_after.empty()) end_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(int64_t(1000 * seconds_of(t.stop_after)));
  if (continues_) optimization_->gather();
  if (continues_ && world_->leads()) complete(callbacks);
  if (log_) log_->begin();
  if (step_ == 0 && t.preview.base && world_->leads())
    attempt("sample grid", callbacks, [&] { learner_->keep_base(optimization_->averaged(), directory_ / "samples"); });
  Window window = log_ ? restored_window() : Window();
  TrainProgress progress{step_, t.steps, t.batch};
  while (step_ < t.steps) {
    if (world_->size() == 1 ? asked_to_stop(callbacks) : stop_) {
      save_together();
      world_->barrier();
      return false;
    }
    const std::optional<double> loss = train_step(window, callbacks);
    progress.step = step_;
    progress.skipped += !loss;
    if (loss) {
      notice_growth(*loss);
      progress.loss = trend_->mean();
    }
    if (callbacks.progress) callbacks.progress(progress);
    if (due(t.log_every)) {
      if (log_) log(window);
      window = {};
    }
    if (log_) log_->note(gathered(window));
    if (due(t.checkpoint_every)) checkpoint(callbacks);
    if (due(t.preview.every)) optimization_->gather();
    if (due(t.preview.every) && world_->leads()) attempt("sample grid", callbacks, [&] { preview(); });
  }
  world_->barrier();
  return true;
}

void Trainer::test(const TrainCallbacks& callbacks) {
  const Metrics figures = learner_->test(optimization_->averaged(), callbacks.stop);
  if (figures.empty()) return;
  log_->append(step_, figures);
  if (callbacks.tested) callbacks.tested(step_, figures);
}

fs::path Trainer::preview_file() const { return directory_ / "samples" / fmt::format("step_{:06}.png", step_); }

fs::path Trainer::preview() {
  const at::NoGradGuard no_grad;
  fs::path file = preview_file();
  if (!learner_->preview(optimization_->averaged(), file)) return {};
  log_->picture(step_, file);
  return file;
}

std::vector<Weight> Trainer::training_state() const {
  std::vector<Weight> all = optimization_->state();
  for (const Weight& w : learner_->state()) all.push_back({"objective." + w.name, w.tensor, false});
  return all;
}

CheckpointSize Trainer::checkpoint_size() const {
  constexpr uint64_t per_tensor = 200, headers = 4096;  // of names, shapes and metadata
  const auto bytes = [](const std::vector<Weight>& all) {
    uint64_t sum = headers;
    for (const Weight& w : all) sum += uint64_t(w.tensor.numel()) * w.tensor.element_size() + per_tensor;
    return sum;
  };
  return {bytes(learner_->stored_shapes(optimization_->averaged())), bytes(training_state())};
}

void Trainer::save() {
  lost_ = true;
  ModelCard card = learner_->card(optimization_->averaged());
  card.step = step_;
  save_model((directory_ / "model.safetensors").string(), learner_->stored(optimization_->averaged()), card);
  learner_->save_parts(directory_, optimization_->averaged(), step_);
  NamedTensors state;
  for (const Weight& w : training_state()) state.push_back({w.name, w.tensor.detach()});
  for (NamedTensor& t : file_tensors(card.files)) state.push_back(std::move(t));
  ModelMetadata::Entries entries = ModelMetadata::of_training(step_, resolved_).entries();
  entries[metadata_key::gathered] = log_->gathered();
  if (world_->size() > 1) entries[metadata_key::processes] = std::to_string(world_->size());
  write_safetensors((directory_ / "training.safetensors").string(), state, entries);
  saved_ = step_;
  lost_ = false;
}

void Trainer::restore(const fs::path& file) {
  step_ = saved_ = training_step(file);
  if (config_.train->shard == TrainOptions::Shard::none || world_->size() == 1)
    load_weights(file.string(), training_state());
  else
    load_published(file.string(), training_state());  // the file has the parts of other processes as well
  learner_->restored();
}

}  // namespace brume
