// The files of statistics: write_statistics() and read_statistics() of feature_summary.h.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <functional>
#include <memory>

#include "brume/config/counted.h"
#include "brume/files/json.h"
#include "brume/files/refuse.h"
#include "brume/train/feature_summary.h"
#include "brume/weights/npz.h"
#include "brume/weights/numpy_pickle.h"

namespace brume {
namespace {

constexpr const char* about = "brume";  ///< the array that says what the others are of

Tensor bytes_of(const std::string& text) {
  Tensor t = at::empty({int64_t(text.size())}, at::kByte);
  std::memcpy(t.data_ptr(), text.data(), text.size());
  return t;
}

std::string text_of(const Tensor& bytes) {
  if (bytes.scalar_type() != at::kByte) return {};
  return {static_cast<const char*>(bytes.data_ptr()), size_t(bytes.numel())};
}

/// The arrays of a file, and what it says of them.
struct Source {
  std::string path;
  std::function<bool(const std::string& name)> contains;
  std::function<Tensor(const std::string& name)> array;
  std::string origin{};  ///< JSON of write_statistics(); empty if the file has none
  int64_t images = 0;    ///< 0 = unknown
};

Source npz_source(const std::string& path) {
  const auto file = std::make_shared<const NpzFile>(path);
  return {path, [file](const std::string& name) { return file->contains(name); },
          [file](const std::string& name) { return file->array(name); }, file->contains(about) ? text_of(file->array(about)) : ""};
}

/// Returns the statistics of the extractor's features in a file of EDM2.
Source edm2_source(const std::string& path, const Features& extractor) {
  const PickleValue whole = load_numpy_pickle(path);
  const PickleDict* file = whole.as_dict();
  if (!file) refuse(path, fmt::format("holds {} instead of a dict of statistics", whole.summary()));
  const std::string name = extractor.frechet_name();
  const PickleValue* entry = name.empty() ? nullptr : file->find(name);
  const PickleDict* arrays = entry ? entry->as_dict() : nullptr;
  if (!arrays) {
    std::vector<std::string> there;
    for (const auto& [key, value] : file->entries())
      if (key.as_text() && value.as_dict()) there.push_back(shortened(*key.as_text(), 40));
    refuse(path, fmt::format("has statistics of {}, and none of the features of {}{}",
                             there.empty() ? std::string("nothing") : fmt::format("{}", fmt::join(there, ", ")), extractor.name(),
                             name.empty() ? "" : fmt::format(" ('{}')", name)));
  }
  NamedTensors named;
  for (const auto& [key, value] : arrays->entries())
    if (key.as_text())
      named.push_back({*key.as_text(), as_array(value, fmt::format("{}: {}.{}", path, name, shortened(*key.as_text(), 40)))});
  Source source{path, [named](const std::string& n) { return find(named, n) != nullptr; },
                [named, path, name](const std::string& n) {
                  const Tensor* t = find(named, n);
                  if (!t) refuse(path, fmt::format("'{}' has no array '{}'", name, n));
                  return *t;
                }};
  if (const PickleValue* n = file->find("num_images"); n && n->as_int()) source.images = *n->as_int();
  if (const PickleValue* text = file->find(about); text && text->as_text()) source.origin = *text->as_text();
  return source;
}

/// Returns the statistics in two arrays of the file, checked.
FeatureStatistics statistics_of(const Source& file, const std::string& mean, const std::string& covariance, int64_t width,
                                const Features& extractor) {
  const FeatureStatistics s{file.array(mean).to(at::kDouble), file.array(covariance).to(at::kDouble)};
  if (s.mean.dim() != 1 || s.covariance.dim() != 2 || s.covariance.size(0) != s.mean.size(0) || s.covariance.size(1) != s.mean.size(0))
    refuse(file.path, fmt::format("'{}' and '{}' are not a mean [F] and its covariance [F, F]", mean, covariance));
  if (s.mean.size(0) != width)
    refuse(file.path, fmt::format("'{}' is of {}, and {} has {}", mean, counted(s.mean.size(0), "feature"), extractor.name(), width));
  for (const auto& [name, t] : {std::pair{&mean, &s.mean}, std::pair{&covariance, &s.covariance}})
    if (!t->isfinite().all().item<bool>()) refuse(file.path, fmt::format("'{}' has values that are not finite", *name));
  const double scale = s.covariance.abs().max().item<double>();
  if ((s.covariance - s.covariance.t()).abs().max().item<double>() > 1e-6 * scale)
    refuse(file.path, fmt::format("'{}' is not symmetric, so it is no covariance", covariance));
  if (s.covariance.diagonal().min().item<double>() < -1e-6 * scale)
    refuse(file.path, fmt::format("'{}' has a variance below 0, so it is no covariance", covariance));
  return s;
}

std::string precision_of(const Features& extractor) { return extractor.dtype() == at::kBFloat16 ? "bf16" : "fp32"; }

void check_origin(const std::string& path, const nlohmann::json& origin, const Features& extractor) {
  const auto differs = [&](const char* key, const std::string& now) {
    const auto stored = origin.find(key);
    if (stored == origin.end() || !stored->is_string() || stored->get<std::string>() == now) return;
    refuse(path, fmt::format("was made with {} '{}', and the samples are measured with '{}'", key,
                             shortened(stored->get<std::string>(), 100), now));
  };
  differs("weights", extractor.hash());
  differs("preprocessing", extractor.preprocessing());
  differs("precision", precision_of(extractor));
}

std::string origin_of(const FeatureSummary& summary, const Features& extractor, const std::string& hash) {
  const nlohmann::ordered_json origin{
      {"features", extractor.name()},         {"weights", extractor.hash()}, {"preprocessing", extractor.preprocessing()},
      {"precision", precision_of(extractor)}, {"images", summary.images},    {"pixels", hash}};
  return origin.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

bool is_pickle(const std::string& path) { return path.ends_with(".pkl"); }

}  // namespace

void write_statistics(const std::string& path, const FeatureSummary& summary, const Features& extractor, const std::string& hash) {
  const std::string origin = origin_of(summary, extractor, hash);
  NamedTensors arrays{{"mu", summary.statistics.mean}, {"sigma", summary.statistics.covariance}};
  if (is_pickle(path)) {
    if (extractor.frechet_name().empty())
      throw ConfigError(fmt::format("{}: files of EDM2 have statistics of inception and dinov2, and none of {}", path, extractor.name()));
    return write_numpy_pickle(path, summary.images, {{extractor.frechet_name(), arrays}}, {{about, origin}});
  }
  if (summary.spatial.mean.defined()) {
    arrays.push_back({"mu_s", summary.spatial.mean});
    arrays.push_back({"sigma_s", summary.spatial.covariance});
  }
  arrays.push_back({about, bytes_of(origin)});
  write_npz(path, arrays);
}

bool holds_statistics(const std::string& path) {
  if (is_pickle(path)) return true;
  if (!path.ends_with(".npz")) return false;
  const NpzFile file(path);
  return file.contains("mu") || (file.contains("sigma") && !file.contains("arr_0"));  // a file that lacks one of them is refused
}

FeatureSummary read_statistics(const std::string& path, const Features& extractor, const SetMetric::Needs& needs) {
  const Source file = is_pickle(path) ? edm2_source(path, extractor) : npz_source(path);
  FeatureSummary s;
  s.name = path;
  s.images = file.images;
  if (!file.origin.empty()) {
    const nlohmann::json origin = json_or_discarded(file.origin);
    if (!origin.is_object()) refuse(path, fmt::format("'{}' is no JSON object", about));
    check_origin(path, origin, extractor);
    if (const auto n = origin.find("images"); n != origin.end() && n->is_number_integer()) s.images = n->get<int64_t>();
  }
  if (needs.statistics) s.statistics = statistics_of(file, "mu", "sigma", extractor.width(), extractor);
  if (needs.spatial) s.spatial = statistics_of(file, "mu_s", "sigma_s", extractor.spatial_width(), extractor);
  return s;
}

}  // namespace brume
