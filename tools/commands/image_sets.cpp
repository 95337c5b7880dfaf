#include "commands/image_sets.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "brume/config/number.h"
#include "brume/config/yaml.h"
#include "brume/image/image.h"
#include "brume/image/image_finder.h"
#include "brume/train/class_scores.h"
#include "brume/weights/npz.h"
#include "commands/open_data.h"
#include "program/progress.h"

namespace brume::tools {
namespace {

namespace fs = std::filesystem;
constexpr int64_t of_endless = 10000;  ///< images of an endless set, if no limit is given

int64_t at_most(int64_t limit, int64_t size) { return limit > 0 ? std::min(limit, size) : size; }

bool is_shape(const ImageShape& s) { return s.channels > 0 && s.height > 0 && s.width > 0; }

/// Adds batches of a part of a set and shows how far it is.
class Adding {
 public:
  Adding(FeatureSummarizer& summarizer, const ImageSet& set, const NumberRange& part)
      : summarizer_(summarizer),
        captions_(set.captions),
        first_(part.begin),
        progress_(set.option.substr(set.option.find_first_not_of('-')), part.count(), "images") {}
  void operator()(const Tensor& images, const std::vector<Annotation>& annotations = {},
                  const std::vector<std::array<int64_t, 2>>& sizes = {}) {
    summarizer_.add(images, captions_of(images.size(0), annotations), sizes);
    progress_.update(summarizer_.images(), double(images.size(0)));
    if (interrupted.load()) throw Interrupted();
  }

 private:
  std::vector<std::string> captions_of(int64_t count, const std::vector<Annotation>& annotations) const {
    std::vector<std::string> all;
    for (size_t i = 0; i < size_t(count); ++i) {
      const size_t place = size_t(first_ + summarizer_.images()) + i;
      all.push_back(place < captions_.size()                      ? captions_[place]
                    : captions_.empty() && i < annotations.size() ? annotations[i].caption
                                                                  : "");
    }
    return all;
  }

  FeatureSummarizer& summarizer_;
  const std::vector<std::string>& captions_;
  int64_t first_;
  Progress progress_;
};

/// Files of equal sizes that follow each other are one batch. An extractor of one size gets them resized to it.
void add_folder(FeatureSummarizer& summarizer, const Features& extractor, const ImageSet& set, int64_t batch) {
  Inventory inventory;
  const std::vector<fs::path> files =
      ImageFinder(set.text, image_extensions(), ImageFinder::Texts::left_out, inventory).find(set.text).images;
  if (files.empty())
    throw ConfigError(
        fmt::format("{}: there is no image in '{}' (looked for {})", set.option, set.text, fmt::join(image_extensions(), ", ")));
  const ImageShape input = extractor.input();
  const NumberRange part = summarizer.begin(at_most(set.limit, int64_t(files.size())));
  Adding add(summarizer, set, part);
  std::vector<Tensor> waiting;
  std::vector<std::array<int64_t, 2>> sizes;  // in the files
  const auto flush = [&] {
    if (!waiting.empty()) add(at::stack(waiting), {}, sizes);
    waiting.clear(), sizes.clear();
  };
  for (int64_t i = part.begin; i < part.end; ++i) {
    Image image = read_image(files[size_t(i)].string(), input.channels);
    const std::array<int64_t, 2> size{image.height, image.width};
    if (input.height > 0 && (image.height != input.height || image.width != input.width)) image = resize(image, input.height, input.width);
    const Tensor t = to_tensor(image);
    if (!waiting.empty() && waiting.back().sizes() != t.sizes()) flush();
    waiting.push_back(t), sizes.push_back(size);
    if (int64_t(waiting.size()) == batch) flush();
  }
  flush();
}

void add_array(FeatureSummarizer& summarizer, const ImageSet& set, int64_t batch) {
  const NpzFile file(set.text);
  if (!file.contains("arr_0"))
    throw ConfigError(fmt::format("{}: '{}' has neither images (arr_0) nor statistics (mu, sigma)", set.option, set.text));
  const Tensor all = file.array("arr_0");
  if (all.dim() != 4 || all.scalar_type() != at::kByte || (all.size(3) != 1 && all.size(3) != 3))
    throw ConfigError(fmt::format("{}: '{}': arr_0 is [{}], and images are [N, H, W, 1 or 3] of 8 bits", set.option, set.text,
                                  fmt::join(all.sizes(), ", ")));
  const NumberRange part = summarizer.begin(at_most(set.limit, all.size(0)));
  Adding add(summarizer, set, part);
  for (int64_t i = part.begin; i < part.end; i += batch)
    add(all.narrow(0, i, std::min(batch, part.end - i)).permute({0, 3, 1, 2}).to(at::kFloat).contiguous() / 127.5 - 1);
}

/// Returns the shape in the section `model`, `classifier` or `autoencoder` of a configuration file.
std::optional<ImageShape> configured_shape(const std::string& text) {
  if (!text.ends_with(".yaml") && !text.ends_with(".yml")) return {};
  const Value file = load_yaml(text);
  for (const char* section : {"model", "classifier", "autoencoder"}) {
    const Value* model = file.is_map() ? file.find(section) : nullptr;
    const Value* image = model && model->is_map() ? model->find("image") : nullptr;
    if (!image || !image->is_map()) continue;
    const auto side = [&](const char* key) {
      const Value* v = image->find(key);
      return v ? parse_number<int64_t>(v->scalar).value_or(0) : 0;
    };
    if (const ImageShape shape{side("channels"), side("height"), side("width")}; is_shape(shape)) return shape;
  }
  return {};
}

/// Throws ConfigError if the text is no file, no YAML of a data set and not the name of one.
void expect_known(const Program& program, const ImageSet& set) {
  const std::vector<std::string> names = program.registry.names("dataset");
  if (set.text.find_first_of("{:") == std::string::npos && !fs::exists(set.text) &&
      std::find(names.begin(), names.end(), set.text) == names.end())
    throw ConfigError(fmt::format("{}: there is no file or folder '{}', and no data set of that name", set.option, set.text));
}

void add_data(Program& program, FeatureSummarizer& summarizer, const ImageSet& set, std::optional<ImageShape> shape, int64_t batch) {
  expect_known(program, set);
  if (!shape) shape = configured_shape(set.text);
  if (!shape) throw ConfigError(fmt::format("{}: the shape of the images is not known; give it with --shape, as 3x32x32", set.option));
  const auto data = open_data(program, set.option, set.text, *shape);
  const int64_t limit = set.limit > 0 || data->size() > 0 ? set.limit : of_endless;
  const NumberRange part = summarizer.begin(count_of(*data, limit));
  Adding add(summarizer, set, part);
  for_each_batch(*data, *shape, batch, part, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
    add(images, annotations);
    return true;
  });
}

}  // namespace

std::optional<ImageShape> shape_of(const std::string& text) {
  if (text.empty()) return {};
  std::vector<int64_t> sides;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('x', begin), text.size());
    sides.push_back(parse_number<int64_t>(std::string_view(text).substr(begin, end - begin)).value_or(0));
    begin = end + 1;
  }
  const ImageShape shape = sides.size() == 3 ? ImageShape{sides[0], sides[1], sides[2]} : ImageShape{};
  if (!is_shape(shape)) throw ConfigError(fmt::format("--shape: '{}' is no shape such as 3x32x32 (channels, height, width)", text));
  return shape;
}

bool has_array(const ImageSet& set, const std::string& name) { return set.text.ends_with(".npz") && NpzFile(set.text).contains(name); }

void add_images(Program& program, FeatureSummarizer& summarizer, const Features& extractor, const ImageSet& set,
                const std::optional<ImageShape>& shape, int64_t batch) {
  std::error_code ignored;
  const ImageShape input = extractor.input();
  if (fs::is_directory(set.text, ignored))
    add_folder(summarizer, extractor, set, batch);
  else if (set.text.ends_with(".npz"))
    add_array(summarizer, set, batch);
  else
    add_data(program, summarizer, set, input.height > 0 ? input : shape, batch);
  summarizer.gather();
}

}  // namespace brume::tools
