// The files of statistics: write_statistics() and read_statistics() of feature_summary.h.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cstring>

#include "brume/files/json.h"
#include "brume/files/refuse.h"
#include "brume/train/feature_summary.h"
#include "brume/weights/npz.h"

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

/// The statistics in two arrays of the file, checked.
FeatureStatistics statistics_of(const NpzFile& file, const std::string& mean, const std::string& covariance, int64_t width,
                                const Features& extractor) {
  const FeatureStatistics s{file.array(mean).to(at::kDouble), file.array(covariance).to(at::kDouble)};
  if (s.mean.dim() != 1 || s.covariance.dim() != 2 || s.covariance.size(0) != s.mean.size(0) || s.covariance.size(1) != s.mean.size(0))
    refuse(file.path(), fmt::format("'{}' and '{}' are not a mean [F] and its covariance [F, F]", mean, covariance));
  if (s.mean.size(0) != width)
    refuse(file.path(), fmt::format("'{}' is of {} features, and {} has {}", mean, s.mean.size(0), extractor.name(), width));
  for (const auto& [name, t] : {std::pair{&mean, &s.mean}, std::pair{&covariance, &s.covariance}})
    if (!t->isfinite().all().item<bool>()) refuse(file.path(), fmt::format("'{}' has values that are not finite", *name));
  const double scale = s.covariance.abs().max().item<double>();
  if ((s.covariance - s.covariance.t()).abs().max().item<double>() > 1e-6 * scale)
    refuse(file.path(), fmt::format("'{}' is not symmetric, so it is no covariance", covariance));
  return s;
}

void check_origin(const NpzFile& file, const nlohmann::json& origin, const Features& extractor) {
  const auto differs = [&](const char* key, const std::string& now) {
    const auto stored = origin.find(key);
    if (stored == origin.end() || !stored->is_string() || stored->get<std::string>() == now) return;
    refuse(file.path(), fmt::format("was made with {} '{}', and the samples are measured with '{}'", key,
                                    shortened(stored->get<std::string>(), 100), now));
  };
  differs("weights", extractor.hash());
  differs("preprocessing", extractor.preprocessing());
}

}  // namespace

void write_statistics(const std::string& path, const FeatureSummary& summary, const Features& extractor, const std::string& hash) {
  NamedTensors arrays{{"mu", summary.statistics.mean}, {"sigma", summary.statistics.covariance}};
  if (summary.spatial.mean.defined()) {
    arrays.push_back({"mu_s", summary.spatial.mean});
    arrays.push_back({"sigma_s", summary.spatial.covariance});
  }
  const nlohmann::ordered_json origin{{"features", extractor.name()},
                                      {"weights", extractor.hash()},
                                      {"preprocessing", extractor.preprocessing()},
                                      {"images", summary.images},
                                      {"pixels", hash}};
  arrays.push_back({about, bytes_of(origin.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace))});
  write_npz(path, arrays);
}

FeatureSummary read_statistics(const std::string& path, const Features& extractor, const SetMetric::Needs& needs) {
  const NpzFile file(path);
  FeatureSummary s;
  s.name = path;
  if (file.contains(about)) {
    const nlohmann::json origin = json_or_discarded(text_of(file.array(about)));
    if (!origin.is_object()) refuse(path, fmt::format("'{}' is no JSON object", about));
    check_origin(file, origin, extractor);
    if (const auto n = origin.find("images"); n != origin.end() && n->is_number_integer()) s.images = n->get<int64_t>();
  }
  if (needs.statistics) s.statistics = statistics_of(file, "mu", "sigma", extractor.width(), extractor);
  if (needs.spatial) s.spatial = statistics_of(file, "mu_s", "sigma_s", extractor.spatial_width(), extractor);
  return s;
}

}  // namespace brume
