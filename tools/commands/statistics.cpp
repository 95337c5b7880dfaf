// brume statistics DATA -o stats.npz: the mean and covariance of the features of images, for `brume evaluate --real`.
#include <fmt/format.h>

#include "brume/config/counted.h"
#include "brume/train/feature_summary.h"
#include "commands/image_sets.h"
#include "commands/open_features.h"
#include "program/outputs.h"
#include "program/processes.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

struct Arguments {
  std::string data, features, output, shape;
  int64_t limit = 0, batch = 64;
  Overrides overrides;
  Rendezvous job;
};

int statistics(Program& program, const Arguments& a, World& world) {
  check_file("--output", a.output);
  catch_interrupt();
  const std::optional<ImageShape> shape = shape_of(a.shape);
  const auto extractor = open_features(program, a.features, a.overrides);
  FeatureSummarizer summarizer(*extractor, {.statistics = true, .spatial = extractor->spatial_width() > 0}, a.data, world);
  add_images(program, summarizer, *extractor, {"data", a.data, a.limit}, shape, a.batch);
  if (!world.leads()) return 0;
  make_parent(a.output);
  write_statistics(a.output, summarizer.summary(), *extractor, "fnv1a:" + summarizer.hash());
  fmt::print("{}: {}, {} of {}; {}\n", a.output, counted(summarizer.images(), "image"), counted(extractor->width(), "feature"),
             extractor->name(), preprocessing_of(*extractor));
  for (const std::string& note : summarizer.notes()) fmt::print("note: {}\n", note);
  if (summarizer.images() <= extractor->width())
    print_warning(fmt::format("{} are few for {}: the covariance is singular", counted(summarizer.images(), "image"),
                              counted(extractor->width(), "feature")));
  return 0;
}

}  // namespace

void add_statistics(Command app, Program& program, int& code) {
  const Command command = app.add_subcommand("statistics", "writes mean and covariance of the features of images, for FID");
  auto a = std::make_shared<Arguments>();
  command.add_option("data", a->data, "the images: a folder, an .npz file of images (arr_0), a data set in YAML, or a configuration file")
      .required()
      .type_name("DATA");
  command.add_option("--features", a->features, "the extractor: inception:FILE, classifier:FILE, or {type: NAME, ...}")
      .required()
      .type_name("FEATURES");
  command.add_option("-o,--output", a->output, "the .npz file to write").required().type_name("FILE");
  command.add_option("--shape", a->shape, "of a data set's images: channels, height and width, as 3x32x32").type_name("CxHxW");
  command.add_option("--batch", a->batch, "images at once; changes nothing but speed and memory")
      .capture_default_str()
      .check(between(1, 65536));
  command.add_option("--limit", a->limit, "images at most; 0 = all, or 10000 of an endless set").check(between(0, 100000000));
  a->overrides.add_to(command);
  add_rendezvous(command, a->job);
  command.callback(
      [&program, &code, a] { code = in_job(a->job, a->overrides.threads, [&](World& world) { return statistics(program, *a, world); }); });
}

}  // namespace brume::tools
