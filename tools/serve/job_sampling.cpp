// What the thread of the queue does with the jobs that it takes.
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>

#include "brume/config/out_of_memory.h"
#include "brume/core/interruption.h"
#include "brume/core/warnings.h"
#include "brume/diffusion/options.h"
#include "brume/files/text_file.h"
#include "brume/image/image.h"
#include "sampling/replay.h"
#include "serve/http.h"
#include "serve/infotext.h"
#include "serve/jobs.h"
#include "serve/previews.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

using Clock = std::chrono::steady_clock;

/// Returns the arguments of `brume sample` that make a job's images.
SampleArguments arguments_of(const Generation& g, const ModelShelf& shelf, const std::string& model, const fs::path& folder) {
  SampleArguments a;
  a.source = model;
  a.request.prompts = g.prompts;
  a.request.negatives = g.negatives;
  a.request.classes = g.classes;
  a.request.count = g.count;
  a.request.seed = g.seed;
  a.request.steps = g.steps;
  a.request.cfg = g.cfg;
  a.request.strength = g.strength;
  a.request.width = g.width, a.request.height = g.height;
  a.request.sampler = g.sampler, a.request.spacing = g.spacing;
  a.request.like = g.like;
  if (!g.guidance.empty()) a.overrides.set.push_back("sample.guidance=" + g.guidance);
  for (const std::string& lora : g.loras) a.open.loras.push_back(shelf.lora_path(lora));
  if (!g.image.empty()) a.image = (folder / g.image).string();
  if (!g.mask.empty()) a.mask = (folder / g.mask).string();
  return a;
}

/// Replaces every `from` by `to`.
void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
}

/// Returns a message in the names of a request's fields: its pictures are files of the job's folder.
std::string in_names_of_request(std::string text, const std::string& id) {
  replace_all(text, id + "/", "");
  for (const std::string name : {"image", "mask"}) {
    replace_all(text, "--" + name, name);
    replace_all(text, name + ": " + name, name);  // the option, then the file
  }
  return text;
}

/// Returns the field that a message begins with; "" if it begins with none.
std::string field_of(const std::string& message) {
  const std::string word = message.substr(0, message.find_first_of(":, [."));
  static constexpr const char* fields[] = {"model", "prompts", "negatives", "classes", "count",    "seed",  "steps", "cfg",  "strength",
                                           "width", "height",  "sampler",   "spacing", "guidance", "image", "mask",  "loras"};
  return std::find(std::begin(fields), std::end(fields), word) == std::end(fields) ? "" : word;
}

}  // namespace

/// How a group is sampled: the images of its jobs, one after the other.
struct Jobs::Sampling {
  struct Image {
    size_t job;      ///< in the group
    int64_t number;  ///< of the job
  };
  std::vector<SampleArguments> arguments;            ///< of each job
  std::vector<std::vector<Annotation>> annotations;  ///< of each job's images
  std::vector<Image> images;
  ImageRequest request;
  const Model* model = nullptr;
  int64_t steps = 0;
  Previews previews;
};

bool Jobs::progress(const Group& group, const Sampling& sampling, const SampleProgress& p) {
  if (stopping_) return false;
  const int64_t images = int64_t(sampling.images.size());
  {
    const std::lock_guard guard(lock_);
    const auto time = Clock::now();
    for (const auto& job : group) {
      const double seconds = std::chrono::duration<double>(time - job->begun).count();
      job->total = p.total * job->request.count / images;
      job->done = p.done * job->request.count / images;
      job->steps = p.step.count, job->step = p.step.index + 1;
      job->rate = seconds > 0 ? double(p.done) / seconds : 0;
      job->eta = p.done > 0 ? seconds / double(p.done) * double(p.total - p.done) : 0;
      ++job->version;
      if (options_.time_limit > 0 && seconds > double(options_.time_limit)) return false;
    }
    changed_.notify_all();
  }
  if (all_cancelled(group)) return false;
  show_preview(group, sampling, p);
  return true;
}

void Jobs::show_preview(const Group& group, const Sampling& sampling, const SampleProgress& p) {
  for (size_t i = 0; i < size_t(p.step.x.size(0)) && size_t(p.first) + i < sampling.images.size(); ++i) {
    const auto [number, k] = sampling.images[size_t(p.first) + i];
    const auto& job = group[number];
    const int64_t every = job->request.preview;
    if (every == 0 || (p.step.index + 1) % every != 0 || (i > 0 && sampling.images[size_t(p.first) + i - 1].job == number)) continue;
    std::string png = sampling.previews.png(*sampling.model, p, int64_t(i));
    const std::lock_guard guard(lock_);
    job->preview = std::move(png);
    ++job->preview_version, ++job->version;
    changed_.notify_all();
  }
}

/// Writes finished images. A disk that is full fails the job that it happens to alone.
void Jobs::save(const Group& group, const Sampling& sampling, int64_t first, const Tensor& images) {
  for (int64_t i = 0; i < images.size(0); ++i) {
    const auto [number, k] = sampling.images[size_t(first + i)];
    const auto& job = group[number];
    if (all_cancelled({job})) continue;
    try {
      SampleArguments a = sampling.arguments[number];
      const Annotation& shown = sampling.annotations[number][size_t(k)];
      ImageRequest& r = a.request;
      if (!r.prompts.empty()) r.prompts = {shown.caption};
      r.negatives = words(shown.negative);
      r.classes = shown.label >= 0 ? std::vector{fmt::format("#{}", shown.label)} : std::vector<std::string>{};
      r.first = k, r.count = 1;
      auto text = origin_text(a);
      JobRecord record = get(job->record.id).record;
      record.images = k + 1;
      text["brume.job"] = json_of(record).dump();
      const Generation& g = job->request;
      if (g.like.starts_with("a1111"))
        text["parameters"] = infotext(g, {.prompt = g.classes.empty() ? shown.caption : g.classes[size_t(k) % g.classes.size()],
                                          .negative = shown.negative,
                                          .number = k,
                                          .steps = sampling.steps,
                                          .width = images.size(3),
                                          .height = images.size(2)});
      const fs::path file = store_.folder(record.id) / fmt::format("{}.png", k);
      write_png(file.string(), to_image(images[i]), text);
      const std::lock_guard guard(lock_);
      std::error_code none;
      if (job->cancelled)
        fs::remove(file, none);  // its record may be written already, without this image
      else
        job->record.images = k + 1;
    } catch (const std::exception& e) {
      end(job, "failed", store_.shown(e.what()), 507);
      const std::lock_guard guard(lock_);
      job->cancelled = true;
    }
  }
}

/// Samples jobs that the model can make. Throws what Model::sample does.
void Jobs::sample(const Group& group, const OpenModel& model) {
  Sampling s;
  s.previews = Previews(model.preview);
  s.model = &model.model;
  for (size_t j = 0; j < group.size(); ++j) {
    const Generation& g = group[j]->request;
    s.arguments.push_back(arguments_of(g, shelf_, model.path, store_.folder(group[j]->record.id)));
    ImageRequest request = tools::request_of(s.arguments.back(), model.model);
    request.names.clear();
    s.annotations.push_back(model.model.annotations(request));
    for (int64_t k = 0; k < int64_t(s.annotations.back().size()); ++k) s.images.push_back({j, k});
    if (j == 0) s.request = request;
  }
  s.request.batch = options_.batch;
  const SampleOptions sampling = model.model.sampling(s.request);
  s.steps = sampling.steps;
  if (sampling.noise_order == NoiseOrder::batch) s.request.batch = std::max(s.request.batch, s.request.count);
  if (group.size() > 1) {
    ImageRequest& r = s.request;
    r.prompts.clear(), r.negatives.clear(), r.classes.clear();
    bool negative = false;
    for (const auto& [number, k] : s.images) {
      const Annotation& shown = s.annotations[number][size_t(k)];
      if (model.model.captions()) r.prompts.push_back(shown.caption), r.negatives.push_back(shown.negative);
      if (shown.label >= 0) r.classes.push_back(fmt::format("#{}", shown.label));
      r.runs.push_back({group[number]->request.seed, k});
      negative = negative || !shown.negative.empty();
    }
    if (!negative) r.negatives.clear();
    r.count = int64_t(s.images.size());
  }
  s.request.progress = [&](const SampleProgress& p) { return progress(group, s, p); };
  s.request.made = [&](int64_t first, const Tensor& images) { save(group, s, first, images); };
  model.model.sample(s.request);
}

void Jobs::run(const Group& group) {
  std::vector<std::string> warnings;
  const ModelShelf::Warnings of_model(warnings);
  const WarningScope scope([&](const std::string& text) { warnings.push_back(text); });
  const StopScope stop([&] { return stopping_ || all_cancelled(group); });
  const auto end_all = [&](const std::string& state, const std::string& error = "", int status = 500, const std::string& field = "",
                           const std::string& code = "") {
    for (const auto& job : group) {
      {
        const std::lock_guard guard(lock_);
        job->record.warnings.insert(job->record.warnings.end(), warnings.begin(), warnings.end());
      }
      const bool cancelled = all_cancelled({job});
      end(job, cancelled ? "cancelled" : state, cancelled ? "" : error, status, field, code);
    }
  };
  try {
    std::vector<std::string> loras;
    for (const std::string& lora : group[0]->request.loras) loras.push_back(shelf_.lora_path(lora));
    const auto model = shelf_.open(group[0]->request.model, loras);
    const bool together = group.size() == 1 || model->model.sampling().noise_order != NoiseOrder::batch;
    if (together) {
      sample(group, *model);
    } else {
      for (const auto& job : group) run({job});
    }
    end_all("done");
  } catch (const Interrupted&) {
    if (stopping_)
      end_all("interrupted", "the server ended before the job did", 503);
    else
      end_all("failed", fmt::format("the job took longer than {} s", options_.time_limit), 504);
  } catch (const HttpError& e) {
    end_all("failed", e.what(), e.status, e.field, e.code);
  } catch (const ConfigError& e) {
    if (group.size() > 1) {  // the fault of one of them
      for (const auto& job : group) run({job});
      return;
    }
    const std::string error = in_names_of_request(store_.shown(e.what()), group[0]->record.id);
    end_all("failed", error, 400, field_of(error));
  } catch (const std::exception& e) {
    const auto memory = out_of_memory(e);
    end_all("failed", memory ? "there is not enough memory; fewer or smaller images need less" : e.what(), memory ? 503 : 500, "",
            memory ? "out_of_memory" : "");
  }
}

}  // namespace brume::tools
