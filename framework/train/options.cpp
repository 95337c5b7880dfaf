#include "train/options.h"

#include "config/plugin_loader.h"

namespace brume {

void EmaOptions::declare(Fields& f) {
  f.field("decay", decay, "largest decay of the moving average of the weights", within(0, 1));
  f.choice("warmup", warmup, "of the decay: none, ratio = (1 + t) / (10 + t), power = 1 - (1 + t / inv_gamma)^-power",
           {{"none", Warmup::none}, {"ratio", Warmup::ratio}, {"power", Warmup::power}});
  f.field("inv_gamma", inv_gamma, "of the power warm-up", more_than(0));
  f.field("power", power, "of the power warm-up", more_than(0));
}

void PreviewOptions::declare(Fields& f) {
  f.field("every", every, "steps between sample grids; 0 = none but the last", at_least(0));
  f.field("count", count, "images in the grid", within(0, 1024));
  f.field("columns", columns, "of the grid; 0 = as square as it gets", at_least(0));
  f.field("steps", steps, "sampling steps", at_least(1));
}

void TrainOptions::declare(Fields& f) {
  f.field("data", data, "the training images");
  f.field("objective", objective, "what is minimised", "simple");
  f.field("optimizer", optimizer, "how", "adamw");
  f.field("batch", batch, "images a step", within(1, 65536));
  f.field("steps", steps, "updates in all", at_least(1));
  f.field("seed", seed, "of the weights, the order of the images and the noise", at_least(0));
  f.section("ema", ema, "moving average of the weights: what is sampled and saved");
  f.section("preview", preview, "sample grids while training");
  f.field("log_every", log_every, "steps between lines of metrics.jsonl", at_least(1));
  f.field("checkpoint_every", checkpoint_every, "steps between checkpoints; the last step always writes one", at_least(1));
}

void Config::declare(Fields& f) {
  f.section("model", model, "the model");
  f.section("train", train, "how it is trained");
  f.section("sample", sample, "how it is sampled");
  f.section("compute", compute, "where it runs");
  f.field("plugins", plugins, "plugin libraries to load");
}

void Config::check() const {
  model.check();
  if (train) train->data.check({model.image});
}

Config read_configuration(Registry& registry, const Value& root, Value* resolved) {
  if (const Value* libraries = root.find("plugins"))
    for (const Value& library : libraries->items) {
      try {
        load_plugin(registry, library.scalar);
      } catch (const ConfigError& e) {
        throw e.located(library.place, "plugins");
      }
    }
  Config config;
  Value full = read_config(registry, root, config);
  config.check();
  if (resolved) *resolved = std::move(full);
  return config;
}

}  // namespace brume
