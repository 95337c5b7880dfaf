#pragma once
// The queue of the server and the thread that samples what waits in it.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "serve/generation.h"
#include "serve/job_store.h"
#include "serve/model_shelf.h"

namespace brume::tools {

struct JobOptions {
  GenerationLimits limits;
  int64_t queue = 64;      ///< jobs that may wait
  int64_t batch = 8;       ///< images that are sampled at once
  int64_t time_limit = 0;  ///< seconds that a job may sample; 0 = without a bound
};

/// A job that waits or runs, or has ended since the server started.
struct Job {
  JobRecord record;
  Generation request;  ///< its pictures are names of files in the job's folder
  std::string client;
  bool cancelled = false, removed = false;
  int error_status = 400;
  std::string error_field;      ///< of the request; "" if the error is of none
  std::string error_code;       ///< a word for programs; "" = none
  int64_t done = 0, total = 0;  ///< image steps
  int64_t step = 0, steps = 0;
  double rate = 0, eta = 0;                  ///< image steps per second; seconds
  int64_t position = 0;                      ///< in the queue, from 1; 0 = it runs or has ended
  int64_t version = 0, preview_version = 0;  ///< count the changes
  std::string preview;                       ///< a PNG
  std::chrono::steady_clock::time_point begun{};
};

/// Returns a job as an answer of the API.
nlohmann::ordered_json json_of(const Job& job);

class Jobs {
 public:
  Jobs(ModelShelf& shelf, JobStore& store, JobOptions options);
  /// Ends the running job at its next step; it and those that wait are interrupted.
  ~Jobs();
  void stop();

  /// Puts a request into the queue. Throws HttpError: 429 if the queue is full, 507 if the disk is.
  Job submit(Generation request, const std::string& client);
  /// Returns a job of the past too. Throws HttpError 404.
  Job get(const std::string& id) const;
  /// Waits until the job has a version above `version`, at most for `most`.
  Job wait(const std::string& id, int64_t version, std::chrono::milliseconds most) const;
  Job cancel(const std::string& id);
  /// Cancels a job, if it has not ended, and removes it.
  void remove(const std::string& id);
  /// Cancels what runs.
  void interrupt();
  /// Returns the job that runs; nothing if none does.
  std::optional<Job> running() const;
  std::vector<Job> list(const std::string& search, int64_t limit, const std::string& before) const;
  std::filesystem::path picture(const std::string& id, int64_t k) const;
  /// Returns the bytes of a finished picture. Throws HttpError 404.
  std::string picture_bytes(const std::string& id, int64_t k) const;

  const JobOptions& options() const { return options_; }
  ModelShelf& shelf() const { return shelf_; }

 private:
  using Group = std::vector<std::shared_ptr<Job>>;
  struct Sampling;
  void work();
  Group next_group();
  void run(const Group& group);
  void sample(const Group& group, const OpenModel& model);
  bool progress(const Group& group, const Sampling& sampling, const SampleProgress& p);
  void save(const Group& group, const Sampling& sampling, int64_t first, const Tensor& images);
  void show_preview(const Group& group, const Sampling& sampling, const SampleProgress& p);
  void end(const std::shared_ptr<Job>& job, const std::string& state, const std::string& error = "", int status = 500,
           const std::string& field = "", const std::string& code = "");
  void keep(Job& job);
  void number_queue();
  std::shared_ptr<Job> find(const std::string& id) const;
  bool all_cancelled(const Group& group) const;

  ModelShelf& shelf_;
  JobStore& store_;
  const JobOptions options_;
  mutable std::mutex lock_;
  mutable std::condition_variable changed_;
  std::list<std::shared_ptr<Job>> queue_;
  int64_t arriving_ = 0;  ///< jobs that are written and not in the queue yet
  Group running_;
  std::map<std::string, std::shared_ptr<Job>> live_;  ///< by id; those that ended leave it
  std::map<std::string, int64_t> served_;             ///< client: when it was served last
  int64_t turns_ = 0;
  std::atomic<bool> stopping_{false};
  std::thread worker_;
};

}  // namespace brume::tools
