// brume sample CHECKPOINT
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <numeric>
#include <optional>

#include "brume/config/counted.h"
#include "brume/config/utf8.h"
#include "brume/diffusion/options.h"
#include "brume/diffusion/pipeline.h"
#include "brume/image/image.h"
#include "brume/like.h"
#include "brume/weights/safetensors.h"
#include "program/outputs.h"
#include "program/processes.h"
#include "program/progress.h"
#include "sampling/arguments.h"
#include "sampling/piece.h"
#include "sampling/replay.h"
#include "sampling/sample_record.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

const std::vector<std::string> files_of_all{".png", ".safetensors"};  ///< that -o writes
bool is_tensor(const std::string& out) { return lower_case(out).ends_with(".safetensors"); }

const std::string usual_names = "{index}";  ///< of the images in a directory

struct Arguments {
  SampleArguments sample;
  std::string from, out = "sample.png", names = usual_names;
  RecordArguments record;
  int64_t columns = 0;
  bool missing = false;
  Rendezvous job;
};

/// Returns the name of an image after a pattern, without its extension.
std::string name_of_image(std::string pattern, int64_t index, uint64_t seed) {
  const auto put = [&](const std::string& field, const std::string& value) {
    for (size_t at; (at = pattern.find(field)) != std::string::npos;) pattern.replace(at, field.size(), value);
  };
  put("{index}", fmt::format("{:05}", index));
  put("{seed}", fmt::format("{}", seed));
  return pattern;
}

void check_names(const Arguments& a, bool one_file) {
  const std::string name = name_of_image(a.names, 0, 0);
  if (a.names.find("{index}") == std::string::npos || name.find_first_of("{}/") != std::string::npos)
    throw ConfigError(
        fmt::format("--names {}: is no pattern of names; it needs {{index}}, may have {{seed}}, and no other braces or /", a.names));
  if (a.columns > 0 && !a.record.any() && (!one_file || is_tensor(a.out)))
    print_warning(fmt::format("--grid: has no effect, as -o {} is no picture of several images", a.out));
  if (one_file && a.names != usual_names) print_warning(fmt::format("--names: has no effect, as -o {} is one file of all images", a.out));
}

/// Returns a class by its number, as --classes takes it: "#2" if "2" is the name of another.
std::string number_of_class(int64_t label, const std::vector<std::string>& classes) {
  const std::string number = std::to_string(label);
  const auto named = std::find(classes.begin(), classes.end(), number);
  return named == classes.end() || named - classes.begin() == label ? number : "#" + number;
}

/// Returns the arguments that make one of these images again.
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
        one_file_(is_file("-o", a.out, files_of_all)),
        apart_(options.noise_order != NoiseOrder::batch && a.sample.noise.empty() && !has_rows(request.image) && !has_rows(request.mask)) {
    a_.sample.request.steps = options.steps;
  }
  bool one_file() const { return one_file_; }

  /// Writes images of a batch, from index `first` on, into the directory.
  void add(int64_t first, const Tensor& images) {
    fs::create_directories(a_.out);
    for (int64_t i = 0; i < images.size(0); ++i, ++written_) {
      const size_t index = size_t(first + i);
      write_png(file_of(index), to_image(images[i]), origin_text(made_by(index)));
    }
  }

  /// Leaves the images for this process of a job, and those that are missing in the directory if only these are to be made.
  void divide(const WorldPlace& place) {
    const NumberRange part = part_of(place, int64_t(annotations_.size()));
    std::vector<int64_t> own(size_t(part.count()));
    std::iota(own.begin(), own.end(), part.begin);
    const auto is_there = [&](int64_t i) { return fs::exists(file_of(size_t(i))); };
    if (a_.missing) {
      if (const auto here = std::find_if(own.begin(), own.end(), is_there); here != own.end()) check_origin(size_t(*here));
      std::erase_if(own, is_there);
    }
    pieces_ = pieces_of(own);
  }

  /// Calls `make` with the request of each piece and the index of its first image; with the whole request if it is not divided.
  void each_piece(const ImageRequest& request, const std::function<void(const ImageRequest& piece, int64_t begin)>& make) const {
    if (!pieces_) return make(request, 0);
    for (const Piece& piece : *pieces_) make(piece_of(request, piece), piece.begin);
  }

  /// Writes one file of all: a picture, or the tensor.
  void write(const Tensor& images) const {
    if (!is_tensor(a_.out)) return write_picture(images);
    make_parent(a_.out);
    write_safetensors(a_.out, {{"images", images.to(at::kFloat).cpu()}}, origin_text(a_.sample));
    fmt::print("{}\n", a_.out);
  }

  /// Says how many images were written.
  void report(std::FILE* to, bool whole) const {
    const bool all = whole && written_ == int64_t(annotations_.size());
    if (written_ > 0 || pieces_)
      fmt::print(to, "{}: {}{} images\n", a_.out, written_, all ? "" : fmt::format(" of {}", annotations_.size()));
  }

 private:
  void write_picture(const Tensor& images) const {
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

  /// Returns true if each image of a run has a row of its own, which a run of one image cannot name.
  static bool has_rows(const Tensor& t) { return t.defined() && t.size(0) > 1; }

  std::string file_of(size_t index) const {
    const std::string name = name_of_image(a_.names, a_.sample.request.first + int64_t(index), a_.sample.request.seed);
    return (fs::path(a_.out) / (name + ".png")).string();
  }

  /// Returns the arguments that an image records.
  SampleArguments made_by(size_t index) const {
    return apart_ ? arguments_of_one(a_.sample, annotations_[index], index, captions_, classes_) : a_.sample;
  }

  /// Throws ConfigError if an image of the directory records other arguments than it would now.
  void check_origin(size_t index) const {
    const auto had = read_png_text(file_of(index)), now = origin_text(made_by(index));
    const auto command = [](const auto& text) { return text.contains("brume") ? text.at("brume") : std::string(); };
    if (command(had) != command(now))
      throw ConfigError(
          fmt::format("--missing: {} was made by 'brume sample {}', and would now be by 'brume sample {}'; another directory "
                      "keeps them apart",
                      file_of(index), command(had), command(now)));
  }

  Arguments a_;
  std::optional<std::vector<Piece>> pieces_{};  ///< the images to make; nothing = all
  std::vector<Annotation> annotations_;
  std::vector<std::string> classes_;
  bool captions_, one_file_;
  bool apart_;  ///< each image can be made alone
  int64_t written_ = 0;
};

/// Samples; `pictures` and `record` receive what there is to write. Returns the images if they are to be one picture or a record.
Tensor run(ImageRequest request, int64_t begin, const Model& model, Pictures& pictures, Record* record) {
  std::optional<Progress> bar;
  if (record) request.ended = [&](const Tensor& x) { record->end(x); };
  if (!pictures.one_file()) request.made = [&](int64_t first, const Tensor& images) { pictures.add(begin + first, images); };
  request.progress = [&](const SampleProgress& p) {
    if (!bar) bar.emplace("sample", p.total, "image steps");
    if (record) record->add(p.first, p.step);
    bar->update(p.done, double(p.step.x.size(0)));
    return !interrupted.load();
  };
  catch_interrupt();
  if (record || pictures.one_file()) return model.sample(request);
  model.sample_batches(request);
  return {};
}

/// Says what the names of another program became.
void print_likeness(const ImageRequest& r, const Model& model, const SampleOptions& options) {
  if (r.like.empty()) return;
  const bool on_image = r.hires || (r.image.defined() && r.strength.value_or(r.mask.defined() ? 1 : 0.6) < 1);
  const Likeness like = likeness(r.like, "--like", model.pipeline().options(),
                                 {options.steps, on_image, r.mask.defined(), options.sampler->traits().order == 0});
  fmt::print(stderr, "--like {}: {}\n", r.like, like.text());
  for (const std::string& loss : like.losses) print_warning(fmt::format("--like {}: {}", r.like, loss));
}

/// Divides the images among the processes of a job, and leaves out those that are there.
void divide(const Arguments& a, const WorldPlace& place, const SampleOptions& options, Pictures& pictures) {
  if (place.size == 1 && !a.missing) return;
  const std::string why = a.missing ? "--missing" : counted(place.size, "process");
  if (pictures.one_file())
    throw ConfigError(
        fmt::format("{}: needs -o DIRECTORY; -o {} is one {} of all images", why, a.out, is_tensor(a.out) ? "tensor" : "picture"));
  if (a.record.any()) throw ConfigError(fmt::format("{}: --frames, --strip and --trajectory are of all images", why));
  check_divisible(options, why.c_str());
  pictures.divide(place);
}

int sample(Program& program, Arguments a) {
  const WorldPlace place = place_in_job(a.job, a.sample.overrides.threads);
  check_record(a.record);
  is_file("-o", a.out, files_of_all);
  const Model model = open_model(program.registry, a.sample);
  if (const int64_t channels = model.shape().channels; channels != 1 && channels != 3 && !is_tensor(a.out))
    throw ConfigError(
        fmt::format("{}: makes images of {}, and a picture has 1 or 3; a model of latents needs its first stage, "
                    "and -o FILE.safetensors takes any number of channels",
                    a.sample.source, counted(channels, "channel")));
  const ImageRequest request = request_of(a.sample, model);
  const SampleOptions options = model.sampling(request);
  print_likeness(request, model, options);
  if (a.record.any() && options.sampler->traits().own_steps)
    throw ConfigError(
        "--frames, --strip and --trajectory need a sampler that takes the steps it is given; this one takes steps of its own");
  if (a.record.any() && request.hires) throw ConfigError("--frames, --strip and --trajectory show one pass, and --hires makes two");
  Pictures pictures(a, model, request, options);
  check_names(a, pictures.one_file());
  divide(a, place, options, pictures);
  RecordArguments wanted = a.record;
  wanted.columns = a.columns, wanted.tile = options.tile;
  Record record(wanted, model.pipeline());
  Tensor images;
  try {
    pictures.each_piece(request, [&](const ImageRequest& piece, int64_t begin) {
      images = run(piece, begin, model, pictures, wanted.any() ? &record : nullptr);
    });
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
  command
      .add_option(
          "-o,--out", a->out,
          "FILE.png = one picture (a grid); FILE.safetensors = the tensor `images` [N, C, H, W] in [-1, 1]; else a directory of images")
      .capture_default_str();
  command
      .add_option("--names", a->names,
                  "names of the images in the directory of -o: {index} is the number of an image, {seed} the seed of all")
      .capture_default_str()
      .type_name("PATTERN");
  command  // replayed() has put the arguments of the image here, long before this is read
      .add_option("--from", a->from,
                  "makes an image of `brume sample` again, from what it records; or one of A1111 or ComfyUI, as far as it goes; other "
                  "options replace its own")
      .type_name("FILE.png [CHECKPOINT]");
  command.add_flag("--missing", a->missing, "makes only the images that the directory of -o does not have");
  add_rendezvous(command, a->job);
  a->sample.add_to(command);
  command.add_option("--grid", a->columns, "columns of the picture").check(between(1, 1000));
  command.add_option("--frames", a->record.frames, "every step: FILE.png = one animated picture (APNG), else a directory");
  command.add_option("--strip", a->record.strip, "a picture of the way from noise to image").type_name("FILE.png");
  command.add_option("--trajectory", a->record.trajectory, "every step's x (network's frame), x0, sigma, t and the image as safetensors")
      .type_name("FILE");
  command.callback([&program, &code, a] { code = sample(program, *a); });
}

}  // namespace brume::tools
