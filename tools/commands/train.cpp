// brume train CONFIG
#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "brume/config/counted.h"
#include "brume/config/foreign.h"
#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/diffusion/model_files.h"
#include "brume/train/checkpoints.h"
#include "brume/train/resuming.h"
#include "brume/train/source.h"
#include "brume/train/trainer.h"
#include "commands/open_data.h"
#include "program/processes.h"
#include "program/program.h"
#include "program/progress.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string config, out, resume;
  bool overwrite = false, of_sweep = false;
  Overrides overrides;
  Rendezvous rendezvous;
};

/// Returns the run directory: --out, or runs/<name of the configuration>.
fs::path run_directory(const Arguments& a) { return a.out.empty() ? fs::path("runs") / fs::path(a.config).stem() : fs::path(a.out); }

/// Returns what to continue: --resume FILE, --resume DIRECTORY, or --resume alone for the run's own directory.
fs::path training_file(const Arguments& a) {
  fs::path at = a.resume == "here" ? run_directory(a) : fs::path(a.resume);
  if (fs::is_directory(at)) at /= "training.safetensors";
  if (!fs::exists(at)) throw ConfigError(fmt::format("--resume: no training file at {}", at.string()));
  return at;
}

/// Returns the configuration of one run: `brume sweep` sets what varies.
Value one_run(const Arguments& a) {
  Value root = load_yaml(a.config);
  if (root.find("sweep") && !a.of_sweep)
    print_warning(fmt::format("{0}: the section 'sweep' has no effect on train; `brume sweep {0}` trains its runs", a.config));
  root.erase("sweep");
  return root;
}

Resumed begun(Program& program, const Arguments& a) {
  Value root = one_run(a);
  a.overrides.apply(root);
  Resumed r;
  r.config = read_training(program.registry, std::move(root), fs::path(a.config).parent_path(), &r.resolved);
  return r;
}

Resumed resumed(Program& program, const Arguments& a, const fs::path& file) {
  const std::optional<Value> given = a.config.empty() ? std::nullopt : std::optional(one_run(a));
  return read_resumed(program.registry, file, given, [&](Value& root) { a.overrides.apply(root); });
}

/// Returns true if a training has no step left, and says so; a sample grid of the last step that is missing is left to do.
bool finished(const fs::path& file, const Config& config) {
  const int64_t step = training_step(file), steps = config.train->steps;
  const bool grid = !config.classifier && config.train->preview.count > 0;
  if (step < steps || (step == steps && grid && !fs::exists(run_of(file) / "samples" / fmt::format("step_{:06}.png", step)))) return false;
  fmt::print(stderr, "{}: at step {} of {}: nothing to do\n", file.string(), step, steps);
  return true;
}

/// Trains, and shows how far it is; returns false if it was interrupted.
bool run(Trainer& trainer, int64_t steps, const World& world) {
  TrainCallbacks quiet;
  quiet.stop = [] { return interrupted.load(); };
  quiet.warn = print_warning;
  if (!world.leads()) return trainer.run(quiet);
  Progress bar("train", steps, "images", trainer.step());
  TrainCallbacks callbacks = quiet;
  callbacks.progress = [&](const TrainProgress& p) {
    bar.update(p.step, double(p.images),
               (p.loss ? fmt::format("loss {:.4f}", *p.loss) : "") + (p.skipped ? fmt::format("  {} not finite", p.skipped) : ""));
  };
  callbacks.tested = [&](int64_t step, const Metrics& figures) {
    bar.finish();
    std::string text;
    for (const auto& [name, value] : figures) text += fmt::format("  {} {:.4f}", name, value);
    fmt::print(stderr, "step {}:{}\n", step, text);
  };
  return trainer.run(callbacks);
}

/// Prints the step at which a training stopped, and how to continue it.
void report_stop(const Trainer& trainer, const Config& config, const fs::path& directory) {
  std::string plugins;
  for (const std::string& library : config.plugins) plugins += fmt::format(" --plugin {}", library);
  fmt::print(stderr, "stopped at step {}; continue with: brume train --resume {}{}\n", trainer.step(),
             (directory / "training.safetensors").string(), plugins);
}

/// Trains. Prints the images that were left out, and the step of a training that did not reach its end.
bool run_to_end(Trainer& trainer, const Config& config, const fs::path& directory, const World& world) {
  const int64_t begin = trainer.step();
  bool done = false;
  try {
    done = run(trainer, config.train->steps, world);
  } catch (...) {
    if (world.leads() && trainer.step() > begin && trainer.saved_step() == trainer.step()) report_stop(trainer, config, directory);
    throw;
  }
  if (!trainer.unread().empty()) fmt::print(stderr, "{} training images could not be read and were left out\n", trainer.unread().size());
  if (!done && world.leads()) report_stop(trainer, config, directory);
  return done;
}

/// Prints what is trained, and on what.
void report_begin(const Trainer& trainer, const Config& config, const fs::path& directory, const World& world) {
  int64_t parameters = 0;
  for (const Weight& w : trainer.weights()) parameters += w.trainable ? w.tensor.numel() : 0;
  const std::string count = parameters < 100'000 ? fmt::format("{}", parameters) : fmt::format("{:.2f} M", double(parameters) / 1e6);
  fmt::print(stderr, "{}: {} parameters{}, {} on {}{}\n", directory.string(), count,
             config.train->freeze.empty() ? "" : " that are not frozen", trainer.compute().dtype == at::kBFloat16 ? "bf16" : "fp32",
             trainer.compute().device.str(), world.size() > 1 ? fmt::format(", {}", counted(world.size(), "process")) : "");
  print_inventory("train.data", trainer.data());
}

/// Prints where the results are.
void report_end(const Config& config, const fs::path& directory) {
  const char* what = config.classifier ? "classifier" : config.autoencoder ? "autoencoder" : "model";
  fmt::print(stderr, "{}: {}\n", what, (directory / "model.safetensors").string());
  const fs::path samples = directory / "samples";
  std::error_code none;
  if (!fs::is_empty(samples, none) && !none)
    fmt::print(stderr, "{}: {}\n", config.autoencoder ? "reconstructions" : "samples", samples.string());
}

/// Trains in this process of a world. Returns the exit code: 0 if all of them stopped together.
int train_in(const std::shared_ptr<World>& shared, Program& program, const Resumed& r, const Arguments& a, const fs::path& file,
             const fs::path& directory) {
  const World& world = *shared;
  int64_t before = 0;
  const ModelFiles models(program.registry, resolve_compute(r.config.compute), (file.empty() ? fs::path(a.config) : file).parent_path());
  std::optional<Progress> images;  // of the class, before the training
  Trainer trainer(r.config, r.resolved, directory, file, models, a.overwrite && file.empty(), shared, [&](int64_t done, int64_t count) {
    if (!images) images.emplace("class images", count, "image steps");
    images->update(done, double(done - std::exchange(before, done)));
    return true;
  });
  images.reset();
  if (world.leads()) report_begin(trainer, r.config, directory, world);
  catch_interrupt();
  const bool done = run_to_end(trainer, r.config, directory, world);
  if (!done) return interrupted && world.size() == 1 ? 130 : 0;
  if (world.leads()) report_end(r.config, directory);
  return 0;
}

/// Returns true if torchrun started this process again because one failed (torchrun --max-restarts).
bool restarted() { return parse_number<int64_t>(process_environment("TORCHELASTIC_RESTART_COUNT").value_or("0")).value_or(0) > 0; }

/// Returns the training file that is continued: also of a training that torchrun started again. Empty: a new training.
fs::path continued(const Arguments& a, bool resume) {
  if (resume) return training_file(a);
  const fs::path file = run_directory(a) / "training.safetensors";
  return restarted() && fs::exists(file) ? file : fs::path();
}

int train(Program& program, const Arguments& a, bool resume) {
  if (a.config.empty() && !resume) throw ConfigError("train needs a configuration, or --resume FILE");
  const fs::path file = continued(a, resume);
  const Resumed r = file.empty() ? begun(program, a) : resumed(program, a, file);
  if (!r.config.train) throw ConfigError(fmt::format("{}: has no section 'train'", a.config));
  const fs::path directory = !file.empty() && a.out.empty() ? run_of(file) : run_directory(a);
  const std::shared_ptr<World> world = join_world(find_launch(process_environment, a.rendezvous).place, std::chrono::seconds(300),
                                                  std::chrono::seconds(r.config.train->timeout));
  try {
    if (world->leads() && !r.changes.empty()) fmt::print(stderr, "{}: goes on with other settings: {}\n", file.string(), r.changes);
    if (!file.empty() && finished(file, r.config)) return 0;
    if (const std::string warning = blas_warning(); world->leads() && !warning.empty()) print_warning(warning);
    return train_in(world, program, r, a, file, directory);
  } catch (const WorldError&) {
    throw;
  } catch (const std::exception& e) {
    world->leave(brief(e));
    throw;
  }
}

}  // namespace

void add_train(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("train", "trains a model, a classifier or an autoencoder, from a configuration");
  auto args = std::make_shared<Arguments>();
  command.add_option("config", args->config, "a YAML file").type_name("CONFIG");
  command.add_option("-o,--out", args->out, "the run directory; runs/<configuration> if not given").type_name("DIR");
  CommandOption resume = command.add_option("--resume", args->resume, "continues a training: its training.safetensors or its directory")
                             .type_name("[FILE]")
                             .expected(0, 1);
  command.add_flag("--overwrite", args->overwrite, "starts over if the directory holds a training");
  command.add_flag("--of-sweep", args->of_sweep, "one run of a sweep").hidden();
  args->overrides.add_to(command);
  add_rendezvous(command, args->rendezvous);
  command.callback([&program, &code, args, resume] {
    if (resume.count() > 0 && args->resume.empty()) args->resume = "here";
    code = train(program, *args, resume.count() > 0);
  });
}

}  // namespace brume::tools
