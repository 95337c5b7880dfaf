// Signals, images and volumes as arrays of numbers, from an .npz or a safetensors file: [N, C, L], [N, C, H, W] or [N, C, D, H, W], or
// without the axis of channels if there is one channel. A signal is an image of one row; the slices of a volume stand one below the
// other, height = D H. All arrays are read when the set is opened.
//
//   value in the training = 2 (value - from) / (to - from) - 1
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "brume/config/counted.h"
#include "brume/config/registry.h"
#include "brume/config/suggest.h"
#include "brume/core/dataset.h"
#include "brume/core/tensor.h"
#include "brume/weights/npz.h"
#include "brume/weights/weights_file.h"

namespace brume::plugins {
namespace {

class Arrays final : public Dataset {
 public:
  struct Options {
    std::filesystem::path path;
    std::string array, labels;
    double from = -1, to = 1;
    std::vector<std::string> classes;
    void declare(Fields& f) {
      f.field("path", path, "file of the arrays, .npz or .safetensors (required)");
      f.field("array", array, "name of the array of signals, images or volumes; empty: the only one in the file that is not `labels`");
      f.field("labels", labels, "name of the array of labels, [N] integers from 0; empty: unlabelled");
      f.field("classes", classes, "names of the classes, by label; absent: '0', '1', ...");
      f.field("from", from, "value that becomes -1");
      f.field("to", to, "value that becomes 1");
      f.require(from != to, "to", "must differ from 'from'");
      f.require(classes.empty() || !labels.empty(), "classes", "needs 'labels'");
    }
  };
  static void check(const Options& o, const Context&) {
    if (o.path.empty()) throw ConfigError("path: the file of the arrays is missing");
  }
  Arrays(const Options& o, const Context& context) : o_(o), shape_(context.shape) {
    const NamedTensors all = read(o.path.string());
    values_ = fitting(chosen(all, "array", o.array.empty() ? only(all) : o.array).tensor);
    if (!o.labels.empty()) take_labels(chosen(all, "labels", o.labels).tensor);
  }

  int64_t size() const override { return values_.size(0); }
  const std::vector<std::string>& classes() const override { return classes_; }
  Annotation read(int64_t index, uint64_t, std::span<float> pixels) const override {
    const float* row = values_.data_ptr<float>() + index * shape_.numel();
    std::copy_n(row, shape_.numel(), pixels.data());
    return {.label = labels_.defined() ? labels_.data_ptr<int64_t>()[index] : -1};
  }

 private:
  static NamedTensors read(const std::string& path) {
    if (!path.ends_with(".npz")) return load_tensors(path);
    const NpzFile file(path);
    NamedTensors all;
    for (const std::string& name : file.names()) all.push_back({name, file.array(name)});
    return all;
  }
  static std::vector<std::string> names_of(const NamedTensors& all) {
    std::vector<std::string> names;
    for (const NamedTensor& t : all) names.push_back(t.name);
    return names;
  }
  std::string only(const NamedTensors& all) const {
    std::vector<std::string> names = names_of(all);
    std::erase(names, o_.labels);
    if (names.size() == 1) return names.front();
    throw ConfigError(fmt::format("array: {} has {} arrays ({}): name one", o_.path.string(), names.size(), fmt::join(names, ", ")));
  }
  const NamedTensor& chosen(const NamedTensors& all, const char* key, const std::string& name) const {
    for (const NamedTensor& t : all)
      if (t.name == name) return t;
    throw ConfigError(fmt::format("{}: {} has no array '{}'{}", key, o_.path.string(), name, hint(name, names_of(all))));
  }

  /// Returns [N, C, H, W] float32, scaled.
  Tensor fitting(const Tensor& array) const {
    const std::vector<int64_t> sizes = array.sizes().vec();
    const auto fits = [&](size_t first) {  // the axes after the channels
      if (sizes.size() <= first || sizes.back() != shape_.width) return false;
      int64_t rows = 1;
      for (size_t i = first; i + 1 < sizes.size(); ++i) rows *= sizes[i];
      return rows == shape_.height;
    };
    const bool with_channels = sizes.size() >= 3 && sizes[1] == shape_.channels && fits(2);
    if (!with_channels && !(shape_.channels == 1 && fits(1)))
      throw ConfigError(fmt::format(
          "array: [{}] is no set of {}, as model.image says: [N, channels, ..., width], where the axes between, multiplied, are "
          "the height",
          fmt::join(sizes, ", "), shape_.text()));
    if (sizes[0] == 0) throw ConfigError("array: is empty");
    const Tensor x = (array.to(at::kDouble) - o_.from) * (2 / (o_.to - o_.from)) - 1;
    const Tensor values = x.to(at::kFloat).contiguous();
    if (!values.isfinite().all().item<bool>()) throw ConfigError("array: has values that are not finite");
    return values;
  }

  void take_labels(const Tensor& labels) {
    if (labels.dim() != 1 || labels.size(0) != size() || at::isFloatingType(labels.scalar_type()))
      throw ConfigError(fmt::format("labels: [{}] are no {}", fmt::join(labels.sizes(), ", "), counted(size(), "integer")));
    labels_ = labels.to(at::kLong).contiguous();
    const int64_t least = labels_.min().item<int64_t>(), most = labels_.max().item<int64_t>();
    const int64_t count = o_.classes.empty() ? most + 1 : int64_t(o_.classes.size());
    if (least < 0 || most >= count || count > 1000000)
      throw ConfigError(fmt::format("labels: run from {} to {}, and there are {}", least, most, counted(o_.classes.size(), "class")));
    classes_ = o_.classes;
    for (int64_t i = 0; o_.classes.empty() && i < count; ++i) classes_.push_back(std::to_string(i));
  }

  Options o_;
  ImageShape shape_;
  Tensor values_, labels_;
  std::vector<std::string> classes_;
};

}  // namespace

void register_dataset_arrays(Registry& r) {
  r.add<Dataset, Arrays>("arrays", "signals, images or volumes as arrays of numbers, from .npz or safetensors");
}

}  // namespace brume::plugins
