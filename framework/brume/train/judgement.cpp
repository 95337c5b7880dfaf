#include "brume/train/judgement.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "brume/core/boundary.h"
#include "brume/numerics/image_quality.h"
#include "brume/train/class_scores.h"
#include "brume/train/evaluation.h"

namespace brume {
namespace {

void count(Tally::Group& group, const Verdict& verdict) {
  ++group.whole.asked;
  group.whole.right += verdict.right;
  for (const auto& [name, right] : verdict.parts) {
    const auto same = [&n = name](const Tally::Part& p) { return p.name == n; };
    auto part = std::find_if(group.parts.begin(), group.parts.end(), same);
    if (part == group.parts.end()) part = group.parts.insert(part, {.name = name});
    ++part->asked;
    part->right += right;
  }
}

}  // namespace

void Tally::add(const Annotation& asked, Verdict verdict) { judged_.push_back({asked.caption, std::move(verdict)}); }

void Tally::judge(const Metric& metric, const Tensor& images, const std::vector<Annotation>& asked) {
  const Tensor pixels = as_8_bits(images).to(at::kCPU, at::kFloat).contiguous();
  const ImageShape shape{images.size(1), images.size(2), images.size(3)};
  for (size_t i = 0; i < asked.size(); ++i)
    add(asked[i], calling(metric, "judge()", [&] {
          return metric.judge({pixels.data_ptr<float>() + int64_t(i) * shape.numel(), size_t(shape.numel())}, shape, asked[i]);
        }));
}

void Tally::gather(World& world) {
  if (world.size() == 1) return;
  using Json = nlohmann::json;
  Json own = Json::array();
  for (const Judged& j : judged_) own.push_back({j.caption, j.verdict.right, j.verdict.group, j.verdict.parts, j.verdict.seen});
  judged_.clear();
  for (const std::string& text : world.all_gather(own.dump(-1, ' ', false, Json::error_handler_t::replace)))
    for (const Json& j : Json::parse(text))
      judged_.push_back(
          {j[0].get<std::string>(),
           {j[1].get<bool>(), j[2].get<std::string>(), j[3].get<std::vector<std::pair<std::string, bool>>>(), j[4].get<std::string>()}});
}

std::vector<Tally::Group> Tally::groups() const {
  std::map<std::string, Group> by_name;
  Group all{.name = "all", .whole = {}, .parts = {}};
  for (const Judged& j : judged_) {
    count(all, j.verdict);
    if (!j.verdict.group.empty()) count(by_name[j.verdict.group], j.verdict);
  }
  std::vector<Group> result{std::move(all)};
  if (by_name.size() < 2) return result;
  for (auto& [name, group] : by_name) {
    group.name = name;
    result.push_back(std::move(group));
  }
  return result;
}

JudgedSet judge_data(const Metric& metric, const Dataset& data, const ImageShape& shape, int64_t count) {
  JudgedSet set;
  for_each_batch(data, shape, 64, count, [&](const Tensor& images, const std::vector<Annotation>& annotations) {
    set.tally.judge(metric, images, annotations);
    set.asked.insert(set.asked.end(), annotations.begin(), annotations.end());
    return true;
  });
  return set;
}

Tally judge_samples(const Metric& metric, const Pipeline& model, const SampleOptions& options, const std::vector<Annotation>& asked,
                    const SampleRequest& request, World& world) {
  Tally tally;
  SampleRequest own = request;
  own.images = asked;
  keep_part(own, world.part(int64_t(asked.size())));
  own.made = [&](int64_t first, const Tensor& images) {
    tally.judge(metric, images, {own.images.begin() + first, own.images.begin() + first + images.size(0)});
  };
  if (!own.images.empty()) sample_batches(model, own, options);
  tally.gather(world);
  return tally;
}

}  // namespace brume
