#pragma once
// The jobs that the server has had, on disk: FOLDER/ID/job.json, K.png, and an index for searching.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace brume::tools {

/// A folder with this file holds jobs.
inline constexpr const char* index_of_jobs = "index.sqlite";

/// What is kept of a job.
struct JobRecord {
  std::string id;                   ///< "20261129-184501-000123-9f3a": sorts by the time of its beginning
  std::string state;                ///< queued, running, done, failed, cancelled or interrupted
  double created = 0, seconds = 0;  ///< since 1970; of sampling
  int64_t images = 0;               ///< pictures 0.png, 1.png, ...
  std::string error{};
  std::vector<std::string> warnings = {};
  nlohmann::ordered_json request = {};  ///< as POST /api/v1/jobs takes it
};

nlohmann::ordered_json json_of(const JobRecord& job);
/// Returns nothing if the text is no record.
std::optional<JobRecord> record_in(const std::string& text);

/// Returns true for texts that job_id() makes: a name of a folder, and never a path.
bool is_job_id(const std::string& text);
std::string job_id();

class JobStore {
 public:
  /// Opens the folder. Brings the index up to date with the folders in it; what was queued or running is interrupted. A job whose job.json
  /// is gone is known by its pictures. Throws ConfigError if the folder cannot be used.
  explicit JobStore(std::filesystem::path folder);
  ~JobStore();

  std::filesystem::path folder(const std::string& id) const { return folder_ / id; }
  /// Returns a message as clients may read it: without the path to the folder.
  std::string shown(std::string message) const;
  /// Writes a record. Throws ConfigError if the disk is full.
  void put(const JobRecord& job);
  std::optional<JobRecord> get(const std::string& id) const;
  /// Returns the latest first, those before the id `before` if it is not empty. `search`: words that a request must hold, all of them.
  std::vector<JobRecord> list(const std::string& search, int64_t limit, const std::string& before) const;
  void remove(const std::string& id);

 private:
  void open();
  void index(const JobRecord& job) const;
  std::optional<JobRecord> recovered(const std::string& id) const;

  const std::filesystem::path folder_;
  mutable std::mutex lock_;
  struct Index;
  std::unique_ptr<Index> index_;
};

}  // namespace brume::tools
