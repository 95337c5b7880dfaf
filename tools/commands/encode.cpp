// brume encode CONFIG|AUTOENCODER --data DATA -o FOLDER
#include <fmt/format.h>

#include "brume/train/encoding.h"
#include "commands/first_stage.h"
#include "commands/open_data.h"
#include "program/processes.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string source, data, out, dtype = "float32";
  EncodingOptions options;
  Overrides overrides;
};

int encode(Program& program, const Arguments& a) {
  if (const std::string warning = blas_warning(); !warning.empty()) print_warning(warning);
  const OpenedFirstStage stage = open_first_stage(program, a.source, a.overrides);
  if (a.data.empty() && !stage.data) throw ConfigError("encode needs --data, the images");
  const auto data =
      a.data.empty() ? std::shared_ptr<const Dataset>(stage.data.make({stage.image})) : open_data(program, "--data", a.data, stage.image);
  EncodingOptions options = a.options;
  options.half = a.dtype == "float16";
  catch_interrupt();
  print_inventory("data", *data);
  int64_t before = 0;
  std::optional<Progress> progress;
  const int64_t count = encode_set(*stage.autoencoder, stage.fingerprint, stage.compute.device, *data, stage.image, a.out, options,
                                   [&](int64_t done, int64_t all) {
                                     if (!progress) progress.emplace("encode", all, "images");
                                     progress->update(done, double(done - before));
                                     before = done;
                                     return !interrupted.load();
                                   });
  fmt::print(stderr, "{}: {} images as moments of {} by {}\n", a.out, count, stage.autoencoder->moments(stage.image).text(),
             stage.fingerprint);
  return 0;
}

}  // namespace

void add_encode(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("encode", "encodes a data set by a first stage, once, for a training in its latent space");
  auto a = std::make_shared<Arguments>();
  command.add_option("source", a->source, "an autoencoder's model.safetensors, or a configuration whose model.autoencoder it is")
      .required()
      .type_name("CHECKPOINT|CONFIG");
  command.add_option("--data", a->data, "the images: {type: idx, ...}, or a YAML file of it; train.data of the configuration if not given")
      .type_name("DATA");
  command.add_option("-o,--out", a->out, "the folder, for {type: latents, path: FOLDER}").required().type_name("FOLDER");
  command.add_option("-n,--count", a->options.count, "images at most; an endless set needs it").check(between(1, int64_t(1) << 40));
  command.add_option("--dtype", a->dtype, "float32 or float16").capture_default_str().check(one_of({"float32", "float16"}));
  command.add_option("--shard", a->options.shard, "images per file").capture_default_str().check(between(1, 100000000));
  command.add_option("--batch", a->options.batch, "images at once; changes nothing but speed and memory")
      .capture_default_str()
      .check(between(1, 65536));
  command.add_option("--tile", a->options.tile, "encode large images in tiles of this many pixels per side; 0 = whole images")
      .capture_default_str()
      .check(between(0, 16384));
  a->overrides.add_to(command);
  command.callback([&program, &code, a] { expect_one_process("encode"), code = encode(program, *a); });
}

}  // namespace brume::tools
