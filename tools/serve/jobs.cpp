#include "serve/jobs.h"

#include <fmt/format.h>

#include <algorithm>

#include "brume/config/counted.h"
#include "brume/config/errors.h"
#include "brume/files/atomic_file.h"
#include "brume/files/mapped_file.h"
#include "brume/files/unsynced.h"
#include "serve/http.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr size_t most_kept = 100;  ///< jobs in memory

bool is_over(const Job& job) { return job.record.state != "queued" && job.record.state != "running"; }

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

[[noreturn]] void refuse_unknown(const std::string& id) {
  throw HttpError(404, fmt::format("there is no job {}", is_job_id(id) ? id : "of this name"), "id", "job_not_found");
}

}  // namespace

nlohmann::ordered_json json_of(const Job& job) {
  nlohmann::ordered_json json = json_of(job.record);
  json["position"] = job.position;
  json["step"] = job.step, json["steps"] = job.steps;
  json["done"] = job.done, json["total"] = job.total;
  json["rate"] = job.rate;
  for (const auto& [key, text] : {std::pair("param", &job.error_field), std::pair("code", &job.error_code)})
    if (!text->empty() && json.contains("error")) json["error"][key] = *text;
  json["eta"] = job.record.state == "running" && job.rate > 0 ? nlohmann::ordered_json(job.eta) : nlohmann::ordered_json(nullptr);
  return json;
}

Jobs::Jobs(ModelShelf& shelf, JobStore& store, JobOptions options)
    : shelf_(shelf), store_(store), options_(options), worker_([this] { work(); }) {}

Jobs::~Jobs() {
  stop();
  worker_.join();
}

void Jobs::stop() {
  const std::lock_guard guard(lock_);
  stopping_ = true;
  changed_.notify_all();
}

Job Jobs::submit(Generation request, const std::string& client) {
  request.model = shelf_.id_of(request.model);
  for (std::string& lora : request.loras) shelf_.lora_path(lora);
  const Unsynced fast;
  auto job = std::make_shared<Job>();
  job->record = {.id = job_id(), .state = "queued", .created = now(), .warnings = request.warnings, .request = json_of(request)};
  job->client = request.client.empty() ? client : request.client;
  {
    const std::lock_guard guard(lock_);
    const int64_t waiting = int64_t(queue_.size()) + arriving_;
    if (waiting >= options_.queue)
      throw HttpError(429, fmt::format("{} wait already; try again later", counted(waiting, "job")), "", "queue_full");
    ++arriving_;
  }
  job->request = std::move(request);
  try {
    keep(*job);
  } catch (const std::exception& e) {
    const std::lock_guard guard(lock_);
    --arriving_;
    throw HttpError(507, store_.shown(e.what()), "", "disk_full");
  }
  const std::lock_guard guard(lock_);
  --arriving_;
  live_[job->record.id] = job;
  queue_.push_back(job);
  for (auto it = live_.begin(); live_.size() > most_kept && it != live_.end();) it = is_over(*it->second) ? live_.erase(it) : std::next(it);
  number_queue();
  changed_.notify_all();
  return *job;
}

/// Writes a job that arrives, with its pictures.
void Jobs::keep(Job& job) try {
  const Unsynced fast;
  store_.put(job.record);
  for (const auto& [name, bytes] : {std::pair("image", &job.request.image), std::pair("mask", &job.request.mask)}) {
    if (bytes->empty()) continue;
    write_file((store_.folder(job.record.id) / name).string(), *bytes);
    *bytes = name;
  }
} catch (const std::exception&) {
  store_.remove(job.record.id);
  throw;
}

/// Numbers the jobs that wait, and counts them as changed.
void Jobs::number_queue() {
  int64_t position = 0;
  for (const auto& job : queue_) job->position = ++position, ++job->version;
}

std::shared_ptr<Job> Jobs::find(const std::string& id) const {
  const auto at = live_.find(id);
  return at == live_.end() ? nullptr : at->second;
}

Job Jobs::get(const std::string& id) const {
  {
    const std::lock_guard guard(lock_);
    if (const auto job = find(id)) return *job;
  }
  auto record = is_job_id(id) ? store_.get(id) : std::nullopt;
  if (!record) refuse_unknown(id);
  Job job;
  job.record = std::move(*record);
  return job;
}

Job Jobs::wait(const std::string& id, int64_t version, std::chrono::milliseconds most) const {
  std::unique_lock guard(lock_);
  const auto job = find(id);
  if (job) {
    changed_.wait_for(guard, most, [&] { return job->version > version || is_over(*job) || stopping_; });
    return *job;
  }
  guard.unlock();
  return get(id);
}

bool Jobs::all_cancelled(const Group& group) const {
  const std::lock_guard guard(lock_);
  return std::all_of(group.begin(), group.end(), [](const auto& job) { return job->cancelled; });
}

Job Jobs::cancel(const std::string& id) {
  std::shared_ptr<Job> job;
  bool at_once = false;
  {
    const std::lock_guard guard(lock_);
    job = find(id);
    if (job && !is_over(*job)) {
      job->cancelled = true;
      const auto at = std::find(queue_.begin(), queue_.end(), job);
      const bool waits = at != queue_.end();
      if (waits) queue_.erase(at), number_queue();
      at_once = waits || running_.size() > 1;  // the others of its batch go on
    }
  }
  if (at_once) end(job, "cancelled");
  return get(id);
}

void Jobs::remove(const std::string& id) {
  Job job = cancel(id);
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!is_over(job) && std::chrono::steady_clock::now() < patience) job = wait(id, job.version, std::chrono::milliseconds(100));
  const std::lock_guard guard(lock_);
  if (const auto live = find(id)) live->removed = true;  // what is still sampled is not written
  live_.erase(id);
  store_.remove(id);
}

void Jobs::interrupt() {
  const std::lock_guard guard(lock_);
  for (const auto& job : running_) job->cancelled = true;
}

std::optional<Job> Jobs::running() const {
  const std::lock_guard guard(lock_);
  const auto at = std::find_if(running_.begin(), running_.end(), [](const auto& job) { return job->record.state == "running"; });
  return at == running_.end() ? std::nullopt : std::optional(**at);  // one that has ended stays until its batch has
}

std::vector<Job> Jobs::list(const std::string& search, int64_t limit, const std::string& before) const {
  std::vector<Job> all;
  for (JobRecord& record : store_.list(search, limit, before)) {
    const std::lock_guard guard(lock_);
    if (const auto live = find(record.id)) {
      all.push_back(*live);
    } else {
      all.emplace_back();
      all.back().record = std::move(record);
    }
  }
  return all;
}

fs::path Jobs::picture(const std::string& id, int64_t k) const {
  const Job job = get(id);
  if (k < 0 || k >= job.record.images)
    throw HttpError(404, fmt::format("job {} has {}", id, counted(job.record.images, "image")), "", "image_not_found");
  return store_.folder(id) / fmt::format("{}.png", k);
}

std::string Jobs::picture_bytes(const std::string& id, int64_t k) const {
  const fs::path file = picture(id, k);
  if (!fs::is_regular_file(file)) throw HttpError(404, "the picture was removed", "", "image_not_found");
  return std::string(MappedFile::open(file.string())->bytes());
}

/// Takes the next job out of the queue, and those that can be sampled in one batch with it. The client that was served the longest time ago
/// comes first.
Jobs::Group Jobs::next_group() {
  std::unique_lock guard(lock_);
  changed_.wait(guard, [&] { return stopping_ || !queue_.empty(); });
  if (stopping_) return {};
  const auto turn = [&](const std::shared_ptr<Job>& job) { return served_[job->client]; };
  const auto first = std::min_element(queue_.begin(), queue_.end(), [&](const auto& a, const auto& b) { return turn(a) < turn(b); });
  Group group{*first};
  queue_.erase(first);
  const std::string key = batch_key(group[0]->request);
  int64_t images = group[0]->request.count;
  for (auto it = queue_.begin(); !key.empty() && it != queue_.end();) {
    const bool fits = images + (*it)->request.count <= options_.batch && batch_key((*it)->request) == key;
    if (fits) images += (*it)->request.count, group.push_back(*it);
    it = fits ? queue_.erase(it) : std::next(it);
  }
  if (served_.size() > 10000) served_.clear();
  for (const auto& job : group) {
    served_[job->client] = ++turns_;
    job->record.state = "running", job->position = 0, ++job->version;
    job->begun = std::chrono::steady_clock::now();
  }
  running_ = group;
  number_queue();
  changed_.notify_all();
  return group;
}

void Jobs::end(const std::shared_ptr<Job>& job, const std::string& state, const std::string& error, int status, const std::string& field,
               const std::string& code) {
  const Unsynced fast;
  const std::lock_guard guard(lock_);  // also while the record is written: a client may cancel what ends meanwhile
  if (is_over(*job)) return;
  JobRecord record = job->record;
  record.state = state;
  record.error = error;
  if (job->begun != std::chrono::steady_clock::time_point())
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - job->begun).count();
  try {
    store_.put(record);
  } catch (const std::exception& e) {
    record.state = "failed";
    record.error = store_.shown(e.what());
    status = 507;
  }
  if (job->removed) store_.remove(record.id);
  // Not the whole record: its id is read without the lock.
  job->record.state = record.state, job->record.error = record.error, job->record.seconds = record.seconds;
  job->error_status = status, job->error_field = field, job->error_code = code;
  job->position = 0;
  job->preview.clear();
  ++job->version;
  changed_.notify_all();
}

void Jobs::work() {
  const Unsynced fast;
  while (!stopping_) {
    const Group group = next_group();
    if (!group.empty()) run(group);
    const std::lock_guard guard(lock_);
    running_.clear();
  }
  Group waiting;
  {
    const std::lock_guard guard(lock_);
    waiting.assign(queue_.begin(), queue_.end());
    queue_.clear();
  }
  for (const auto& job : waiting) end(job, "interrupted", "the server ended before the job did", 503);
}

}  // namespace brume::tools
