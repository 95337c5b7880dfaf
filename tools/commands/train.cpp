// brume train CONFIG
#include <fmt/format.h>

#include <filesystem>

#include "brume/config/yaml.h"
#include "brume/diffusion/model_files.h"
#include "brume/train/checkpoints.h"
#include "brume/train/resuming.h"
#include "brume/train/source.h"
#include "brume/train/trainer.h"
#include "commands/open_data.h"
#include "program/program.h"
#include "program/progress.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  std::string config, out, resume;
  bool overwrite = false, of_sweep = false;
  Overrides overrides;
};

/// The run directory: --out, or runs/<name of the configuration>.
fs::path run_directory(const Arguments& a) { return a.out.empty() ? fs::path("runs") / fs::path(a.config).stem() : fs::path(a.out); }

/// What to continue: --resume FILE, --resume DIRECTORY, or --resume alone for the run's own directory.
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
bool run(Trainer& trainer, int64_t steps) {
  Progress bar("train", steps, "images", trainer.step());
  TrainCallbacks callbacks;
  callbacks.stop = [] { return interrupted.load(); };
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
  callbacks.warn = print_warning;
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
bool run_to_end(Trainer& trainer, const Config& config, const fs::path& directory) {
  const int64_t begin = trainer.step();
  bool done = false;
  try {
    done = run(trainer, config.train->steps);
  } catch (...) {
    if (trainer.step() > begin && trainer.saved_step() == trainer.step()) report_stop(trainer, config, directory);
    throw;
  }
  if (!trainer.unread().empty()) fmt::print(stderr, "{} training images could not be read and were left out\n", trainer.unread().size());
  if (!done) report_stop(trainer, config, directory);
  return done;
}

int train(Program& program, const Arguments& a, bool resume) {
  const fs::path file = resume ? training_file(a) : fs::path();
  if (a.config.empty() && !resume) throw ConfigError("train needs a configuration, or --resume FILE");
  const Resumed r = resume ? resumed(program, a, file) : begun(program, a);
  const Config& config = r.config;
  if (!config.train) throw ConfigError(fmt::format("{}: has no section 'train'", a.config));
  const fs::path directory = resume && a.out.empty() ? run_of(file) : run_directory(a);
  if (!r.changes.empty()) fmt::print(stderr, "{}: goes on with other settings: {}\n", file.string(), r.changes);
  if (resume && finished(file, config)) return 0;
  if (const std::string warning = blas_warning(); !warning.empty()) print_warning(warning);

  const ModelFiles models(program.registry, resolve_compute(config.compute), (resume ? file : fs::path(a.config)).parent_path());
  Trainer trainer(config, r.resolved, directory, file, models, a.overwrite && !resume);
  int64_t parameters = 0;
  for (const Weight& w : trainer.weights()) parameters += w.trainable ? w.tensor.numel() : 0;
  fmt::print(stderr, "{}: {:.2f} M parameters{}, {} on {}\n", directory.string(), double(parameters) / 1e6,
             config.train->freeze.empty() ? "" : " that are not frozen", trainer.compute().dtype == at::kBFloat16 ? "bf16" : "fp32",
             trainer.compute().device.str());
  print_inventory("train.data", trainer.data());
  catch_interrupt();
  if (!run_to_end(trainer, config, directory)) return 130;
  const char* what = config.classifier ? "classifier" : config.autoencoder ? "autoencoder" : "model";
  fmt::print(stderr, "{}: {}\n", what, (directory / "model.safetensors").string());
  if (!config.classifier)
    fmt::print(stderr, "{}: {}\n", config.autoencoder ? "reconstructions" : "samples", (directory / "samples").string());
  return 0;
}

}  // namespace

void add_train(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("train", "trains a model, a classifier or an autoencoder, from a configuration");
  auto asked = std::make_shared<Arguments>();
  command.add_option("config", asked->config, "a YAML file").type_name("CONFIG");
  command.add_option("-o,--out", asked->out, "the run directory; runs/<configuration> if not given").type_name("DIR");
  CommandOption resume = command.add_option("--resume", asked->resume, "continue a training: its training.safetensors or its directory")
                             .type_name("[FILE]")
                             .expected(0, 1);
  command.add_flag("--overwrite", asked->overwrite, "start over if the directory holds a training");
  command.add_flag("--of-sweep", asked->of_sweep, "one run of a sweep").hidden();
  asked->overrides.add_to(command);
  command.callback([&program, &code, asked, resume] {
    if (resume.count() > 0 && asked->resume.empty()) asked->resume = "here";
    code = train(program, *asked, resume.count() > 0);
  });
}

}  // namespace brume::tools
