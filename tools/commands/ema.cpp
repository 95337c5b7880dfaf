// brume ema reconstruct RUN --std 0.07 -o model.safetensors
#include <fmt/format.h>

#include <optional>

#include "brume/config/counted.h"
#include "brume/train/ema_snapshots.h"
#include "program/outputs.h"
#include "program/program.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string run, out;
  double std = 0;
  std::optional<int64_t> step;
};

void reconstruct(const Arguments& a) {
  if (a.std < 1e-3 || a.std > 0.28)
    throw ConfigError(fmt::format("--std {}: is the length of an average over the training, 0.001 to 0.28", a.std));
  check_file("--out", a.out);
  const Reconstruction r = reconstruct_average(a.run, a.std, a.step);
  save_model(a.out, r.weights, r.card);
  fmt::print("{}: the average of length {} at step {}, from {}\n", a.out, a.std, r.step, counted(r.snapshots, "snapshot"));
}

}  // namespace

void add_ema(Command app, Program&, int&) {
  const Command ema = app.add_subcommand("ema", "makes models of the moving averages of a training");
  ema.require_subcommand(1);
  const Command command = ema.add_subcommand("reconstruct", "makes a model with an average whose length was not tracked");
  auto a = std::make_shared<Arguments>();
  command.add_option("run", a->run, "the directory of a training with train.ema: {type: power}").required().type_name("RUN");
  command.add_option("--std", a->std, "length of the average, over that of the training").required().type_name("STD");
  command.add_option("--step", a->step, "step that the average ends at; default: the last snapshots").type_name("N");
  command.add_option("-o,--out", a->out, "the model's file").required().type_name("FILE");
  command.callback([a] { reconstruct(*a); });
}

}  // namespace brume::tools
