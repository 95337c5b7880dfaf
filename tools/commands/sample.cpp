// brume sample CHECKPOINT
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "brume/diffusion/options.h"
#include "brume/diffusion/pipeline.h"
#include "brume/like.h"
#include "program/outputs.h"
#include "program/progress.h"
#include "sampling/arguments.h"
#include "sampling/replay.h"
#include "sampling/sample_record.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

struct Arguments {
  SampleArguments sample;
  std::string from, out = "sample.png";
  RecordArguments record;
  int64_t columns = 0;
};

/// A class by its number, as --classes takes it: "#2" if "2" is the name of another.
std::string number_of_class(int64_t label, const std::vector<std::string>& classes) {
  const std::string number = std::to_string(label);
  const auto named = std::find(classes.begin(), classes.end(), number);
  return named == classes.end() || named - classes.begin() == label ? number : "#" + number;
}

/// The arguments that make one of these images again.
SampleArguments arguments_of_one(SampleArguments a, const Annotation& image, size_t number, bool captions,
                                 const std::vector<std::string>& classes) {
  ImageRequest& r = a.request;
  a.prompts_file.clear();
  r.prompts = captions ? std::vector{image.caption} : std::vector<std::string>{};
  r.negatives = words(image.negative);
  r.classes = image.label >= 0 ? std::vector{number_of_class(image.label, classes)} : std::vector<std::string>{};
  r.images_per_prompt = 0;
  r.first += int64_t(number);
  r.count = 1;
  return a;
}

/// The pictures of a run: one file at its end, or one file per image, as they come.
class Pictures {
 public:
  Pictures(const Arguments& a, const Model& model, const ImageRequest& request, const SampleOptions& options)
      : a_(a),
        annotations_(model.annotations(request)),
        classes_(model.classes(request)),
        captions_(model.captions()),
        one_file_(is_file("-o", a.out, {".png"})),
        apart_(options.noise_order != NoiseOrder::batch && a.sample.noise.empty() && !has_rows(request.image) && !has_rows(request.mask)) {
    a_.sample.request.steps = options.steps;
  }
  bool one_file() const { return one_file_; }

  /// Writes images of a batch, from index `first` on, into the directory.
  void add(int64_t first, const Tensor& images) {
    fs::create_directories(a_.out);
    for (int64_t i = 0; i < images.size(0); ++i, ++written_) {
      const size_t number = size_t(first + i);
      const SampleArguments made = apart_ ? arguments_of_one(a_.sample, annotations_[number], number, captions_, classes_) : a_.sample;
      const std::string name = fmt::format("{:05}.png", a_.sample.request.first + int64_t(number));
      write_png((fs::path(a_.out) / name).string(), to_image(images[i]), origin_text(made));
    }
  }

  /// Writes one picture of all.
  void write(const Tensor& images) const {
    std::vector<Image> all;
    for (int64_t i = 0; i < images.size(0); ++i) all.push_back(to_image(images[i]));
    const std::vector<std::string> labels = labels_of(annotations_, classes_);
    const int64_t columns = columns_of(a_.columns, all.size());
    make_parent(a_.out);
    write_png(a_.out,
              all.size() == 1  ? all[0]
              : labels.empty() ? grid(all, columns)
                               : labelled_grid(all, columns, labels),
              origin_text(a_.sample));
    fmt::print("{}\n", a_.out);
  }

  /// Says how many images were written.
  void report(std::FILE* to, bool whole) const {
    if (written_ > 0) fmt::print(to, "{}: {}{} images\n", a_.out, written_, whole ? "" : fmt::format(" of {}", annotations_.size()));
  }

 private:
  /// Returns true if each image of a run has a row of its own, which a run of one image cannot name.
  static bool has_rows(const Tensor& t) { return t.defined() && t.size(0) > 1; }

  Arguments a_;
  std::vector<Annotation> annotations_;
  std::vector<std::string> classes_;
  bool captions_, one_file_;
  bool apart_;  ///< each image can be made alone
  int64_t written_ = 0;
};

/// Samples; `pictures` and `record` receive what there is to write.
Tensor run(ImageRequest& request, const Model& model, Pictures& pictures, Record* record) {
  std::optional<Progress> bar;
  if (record) request.ended = [&](const Tensor& x) { record->end(x); };
  if (!pictures.one_file()) request.made = [&](int64_t first, const Tensor& images) { pictures.add(first, images); };
  request.progress = [&](const SampleProgress& p) {
    if (!bar) bar.emplace("sample", p.total, "image steps");
    if (record) record->add(p.first, p.step);
    bar->update(p.done, double(p.step.x.size(0)));
    return !interrupted.load();
  };
  catch_interrupt();
  return model.sample(request);
}

/// Says what the names of another program became.
void print_likeness(const ImageRequest& r, const Model& model) {
  if (r.like.empty()) return;
  const Likeness like = likeness(r.like, "--like", model.pipeline().options().conditioner->traits().reads_prompts);
  fmt::print(stderr, "--like {}: {}\n", r.like, like.text());
  for (const std::string& loss : like.losses) print_warning(fmt::format("--like {}: {}", r.like, loss));
}

int sample(Program& program, const Arguments& a) {
  check_record(a.record);
  is_file("-o", a.out, {".png"});
  const Model model = open_model(program.registry, a.sample);
  if (const int64_t channels = model.shape().channels; channels != 1 && channels != 3)
    throw ConfigError(fmt::format("{}: makes images of {} channels, and a picture has 1 or 3; a model of latents needs its first stage",
                                  a.sample.source, channels));
  ImageRequest request = request_of(a.sample, model);
  const SampleOptions options = model.sampling(request);
  print_likeness(request, model);
  if (a.record.any() && options.sampler->traits().own_steps)
    throw ConfigError(
        "--frames, --strip and --trajectory need a sampler that takes the steps it is given; this one takes steps of its own");
  if (a.record.any() && request.hires) throw ConfigError("--frames, --strip and --trajectory show one pass, and --hires makes two");
  Pictures pictures(a, model, request, options);
  RecordArguments wanted = a.record;
  wanted.columns = a.columns, wanted.tile = options.tile;
  Record record(wanted, model.pipeline());
  Tensor images;
  try {
    images = run(request, model, pictures, wanted.any() ? &record : nullptr);
  } catch (...) {
    pictures.report(stderr, false);
    throw;
  }
  if (pictures.one_file())
    pictures.write(images);
  else
    pictures.report(stdout, true);
  if (wanted.any()) record.write(images);
  return 0;
}

}  // namespace

void add_sample(Command app, Program& program, int& code) {
  const Command command =
      app.add_subcommand("sample", "makes images from a checkpoint (or from a configuration whose network has no weights)");
  auto a = std::make_shared<Arguments>();
  command.add_option("source", a->sample.source, "model.safetensors, or a YAML file").required().type_name("CHECKPOINT");
  command.add_option("-o,--out", a->out, "FILE.png = one picture (a grid), anything else = a directory of images").capture_default_str();
  command  // replayed() has put the arguments of the image here, long before this is read
      .add_option("--from", a->from, "makes an image of `brume sample` again, from what it records; other options replace its own")
      .type_name("FILE.png [CHECKPOINT]");
  a->sample.add_to(command);
  command.add_option("--grid", a->columns, "columns of the picture").check(between(1, 1000));
  command.add_option("--frames", a->record.frames, "every step: FILE.png = one animated picture (APNG), else a directory");
  command.add_option("--strip", a->record.strip, "a picture of the way from noise to image").type_name("FILE.png");
  command.add_option("--trajectory", a->record.trajectory, "every step's x (network's frame), x0, sigma, t and the image as safetensors")
      .type_name("FILE");
  command.callback([&program, &code, a] { code = sample(program, *a); });
}

}  // namespace brume::tools
