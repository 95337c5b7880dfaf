// brume encode CONFIG|AUTOENCODER --data DATA -o FOLDER
#include <fmt/format.h>

#include "brume/config/counted.h"
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
  Rendezvous job;
};

/// Says what was written, and what the folder is now.
void report(const Arguments& a, const Encoded& done, const OpenedFirstStage& stage, const WorldPlace& place) {
  const std::string moments = fmt::format("moments of {} by {}", stage.autoencoder->moments(stage.image).text(), stage.fingerprint);
  if (place.size > 1 || a.options.missing)
    fmt::print(stderr, "{}: wrote {} of {}, {}\n", a.out, done.shards, counted(done.all, "shard"), counted(done.images, "image"));
  if (done.indexed > 0) fmt::print(stderr, "{}: {} as {}\n", a.out, counted(done.indexed, "image"), moments);
  if (done.indexed == 0 && place.size == 1) throw std::logic_error("encode: a shard is missing");
}

int encode(Program& program, Arguments a) {
  const WorldPlace place = place_in_job(a.job, a.overrides.threads);
  if (const std::string warning = blas_warning(); !warning.empty()) print_warning(warning);
  const OpenedFirstStage stage = open_first_stage(program, a.source, a.overrides);
  if (a.data.empty() && !stage.data) throw ConfigError("encode needs --data, the images");
  const auto data =
      a.data.empty() ? std::shared_ptr<const Dataset>(stage.data.make({stage.image})) : open_data(program, "--data", a.data, stage.image);
  EncodingOptions options = a.options;
  options.half = a.dtype == "float16";
  options.place = place;
  catch_interrupt();
  if (place.rank == 0) print_inventory("data", *data);
  int64_t before = 0;
  std::optional<Progress> progress;
  const Encoded done = encode_set(*stage.autoencoder, stage.fingerprint, stage.compute.device, *data, stage.image, a.out, options,
                                  [&](int64_t images, int64_t all) {
                                    if (!progress) progress.emplace("encode", all, "images");
                                    progress->update(images, double(images - before));
                                    before = images;
                                    return !interrupted.load();
                                  });
  progress.reset();
  if (place.rank == 0 && done.all < place.size)
    print_warning(fmt::format("{} had {} to make, one process each; a smaller --shard divides the images", counted(place.size, "process"),
                              counted(done.all, "shard")));
  report(a, done, stage, place);
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
  command.add_option("--tile", a->options.tile, "encodes large images in tiles of this many pixels per side; 0 = whole images")
      .capture_default_str()
      .check(between(0, 16384));
  command.add_flag("--missing", a->options.missing,
                   "makes only the shards that the folder does not have; an interrupted call keeps its own");
  a->overrides.add_to(command);
  add_rendezvous(command, a->job);
  command.callback([&program, &code, a] { code = encode(program, *a); });
}

}  // namespace brume::tools
