#include "serve/job_store.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "brume/config/errors.h"
#include "brume/files/atomic_file.h"
#include "brume/files/json.h"
#include "brume/files/text_file.h"
#include "brume/image/image.h"

namespace brume::tools {
namespace fs = std::filesystem;
namespace {

constexpr int layout = 1;  ///< of the index; another one is made again

struct Close {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, Close>;
using Statement = std::unique_ptr<sqlite3_stmt, Close>;

Statement prepared(sqlite3* db, const std::string& sql, const std::vector<std::string>& values = {}) {
  sqlite3_stmt* raw = nullptr;
  Statement statement(sqlite3_prepare_v2(db, sql.c_str(), -1, &raw, nullptr) == SQLITE_OK ? raw : nullptr);
  for (size_t i = 0; statement && i < values.size(); ++i)
    sqlite3_bind_text(raw, int(i) + 1, values[i].data(), int(values[i].size()), SQLITE_TRANSIENT);
  return statement;
}

std::string column(const Statement& statement, int i) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement.get(), i));
  return text ? std::string(text, size_t(sqlite3_column_bytes(statement.get(), i))) : std::string();
}

bool execute(sqlite3* db, const std::string& sql) { return sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK; }

int version_of(sqlite3* db) {
  const Statement version = prepared(db, "PRAGMA user_version");
  return version && sqlite3_step(version.get()) == SQLITE_ROW ? sqlite3_column_int(version.get(), 0) : -1;
}

/// A power cut may have damaged the index.
bool is_sound(sqlite3* db) {
  const Statement check = prepared(db, "PRAGMA quick_check(1)");
  return check && sqlite3_step(check.get()) == SQLITE_ROW && column(check, 0) == "ok";
}

/// Opens the index if it is whole and of this layout.
Database opened(const fs::path& file) {
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(file.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, nullptr);
  Database db(raw);
  if (code != SQLITE_OK) return {};
  const int version = version_of(raw);
  // A write-ahead log takes fewer writes than a journal, and a kill damages neither.
  const bool whole = (version == 0 || version == layout) && execute(raw, "PRAGMA busy_timeout = 2000; PRAGMA synchronous = OFF") &&
                     is_sound(raw) && execute(raw, "PRAGMA journal_mode = WAL") && execute(raw, "PRAGMA wal_autocheckpoint = 16") &&
                     execute(raw, "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, words TEXT, record TEXT)") &&
                     execute(raw, fmt::format("PRAGMA user_version = {}", layout)) && prepared(raw, "SELECT id, words, record FROM jobs");
  return whole ? std::move(db) : Database();
}

bool is_over(const std::string& state) { return state != "queued" && state != "running"; }

int64_t pictures_in(const fs::path& folder) {
  std::error_code none;
  int64_t count = 0;
  while (fs::exists(folder / fmt::format("{}.png", count), none)) ++count;
  return count;
}

/// The search has no wildcards of its own.
std::string like_pattern(const std::string& word) {
  std::string pattern = "%";
  for (const char c : word) pattern += c == '%' || c == '_' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return pattern + "%";
}

}  // namespace

struct JobStore::Index {
  Database db;
};

nlohmann::ordered_json json_of(const JobRecord& job) {
  nlohmann::ordered_json json{
      {"id", job.id}, {"state", job.state}, {"created", job.created}, {"seconds", job.seconds}, {"request", job.request}};
  json["images"] = nlohmann::ordered_json::array();
  for (int64_t k = 0; k < job.images; ++k) json["images"].push_back({{"url", fmt::format("/api/v1/jobs/{}/images/{}.png", job.id, k)}});
  if (!job.error.empty()) json["error"] = {{"message", job.error}};
  json["warnings"] = job.warnings;
  return json;
}

std::optional<JobRecord> record_in(const std::string& text) try {
  const nlohmann::json json = json_or_discarded(text);
  if (!json.is_object() || !is_job_id(json.at("id").get<std::string>())) return {};
  JobRecord job;
  job.id = json.at("id").get<std::string>();
  job.state = json.at("state").get<std::string>();
  job.created = json.at("created").get<double>();
  job.seconds = json.at("seconds").get<double>();
  job.images = int64_t(json.at("images").size());
  job.request = nlohmann::ordered_json::parse(json.at("request").dump());
  if (json.contains("error")) job.error = json.at("error").at("message").get<std::string>();
  for (const auto& warning : json.at("warnings")) job.warnings.push_back(warning.get<std::string>());
  return job;
} catch (const nlohmann::json::exception&) {
  return {};
}

bool is_job_id(const std::string& text) {
  if (text.size() != 27) return false;
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-'; });
}

std::string job_id() {
  static std::atomic<unsigned> count{0};
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("{:%Y%m%d-%H%M%S}-{:06}-{:04x}", fmt::gmtime(now), count++ % 1000000, std::random_device()() & 0xffff);
}

JobStore::JobStore(fs::path folder) : folder_(std::move(folder)), index_(std::make_unique<Index>()) {
  fs::create_directories(folder_);
  index_->db = opened(folder_ / index_of_jobs);
  if (!index_->db) {
    std::error_code none;
    for (const char* ending : {"", "-wal", "-shm", "-journal"}) fs::remove(folder_ / (std::string(index_of_jobs) + ending), none);
    index_->db = opened(folder_ / index_of_jobs);
  }
  if (!index_->db) throw ConfigError(fmt::format("{}: the index of the images cannot be opened", (folder_ / index_of_jobs).string()));
  open();
}

JobStore::~JobStore() = default;

std::string JobStore::shown(std::string message) const {
  const std::string path = (folder_ / "").string();
  for (size_t at = message.find(path); at != message.npos; at = message.find(path, at)) message.erase(at, path.size());
  return message;
}

/// Returns the record of a folder: job.json, or what its first picture says.
std::optional<JobRecord> JobStore::recovered(const std::string& id) const {
  std::optional<JobRecord> job;
  std::error_code none;
  const fs::path folder = folder_ / id;
  if (fs::is_regular_file(folder / "job.json", none)) job = record_in(read_text((folder / "job.json").string()));
  if (!job && fs::exists(folder / "0.png", none)) try {
      const auto text = read_png_text((folder / "0.png").string());
      if (const auto at = text.find("brume.job"); at != text.end()) job = record_in(at->second);
      if (job) job->state = "done";
    } catch (const ConfigError&) {
      return {};
    }
  if (!job || job->id != id) return {};
  if (!is_over(job->state)) job->state = "interrupted", job->error = "the server ended before the job did";
  job->images = pictures_in(folder);
  return job;
}

void JobStore::open() {
  std::map<std::string, bool> known;  // id: it is over
  const Statement all = prepared(index_->db.get(), "SELECT id, record FROM jobs");
  while (all && sqlite3_step(all.get()) == SQLITE_ROW) {
    const auto job = record_in(column(all, 1));
    known[column(all, 0)] = job && is_over(job->state);
  }
  execute(index_->db.get(), "BEGIN");
  std::error_code error;
  std::set<std::string> there;
  for (auto at = fs::directory_iterator(folder_, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string id = at->path().filename().string();
    if (!is_job_id(id)) continue;
    there.insert(id);
    if (const auto it = known.find(id); it != known.end() && it->second) continue;
    if (const auto job = recovered(id)) {
      index(*job);
      try {
        write_file((folder_ / id / "job.json").string(), json_of(*job).dump());
      } catch (const ConfigError&) {
        continue;  // a full disk: it is found interrupted the next time too
      }
    }
  }
  for (const auto& [id, over] : known)
    if (!there.contains(id)) {
      const Statement gone = prepared(index_->db.get(), "DELETE FROM jobs WHERE id = ?", {id});
      if (gone) sqlite3_step(gone.get());
    }
  execute(index_->db.get(), "COMMIT");
}

void JobStore::index(const JobRecord& job) const {
  const Statement put = prepared(index_->db.get(), "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)",
                                 {job.id, job.request.dump() + " " + job.state, json_of(job).dump()});
  if (put) sqlite3_step(put.get());
}

void JobStore::put(const JobRecord& job) {
  const std::lock_guard guard(lock_);
  index(job);  // in the index even if the disk is full
  fs::create_directories(folder_ / job.id);
  write_file((folder_ / job.id / "job.json").string(), json_of(job).dump());
}

std::optional<JobRecord> JobStore::get(const std::string& id) const {
  const std::lock_guard guard(lock_);
  const Statement one = prepared(index_->db.get(), "SELECT record FROM jobs WHERE id = ?", {id});
  return one && sqlite3_step(one.get()) == SQLITE_ROW ? record_in(column(one, 0)) : std::nullopt;
}

std::vector<JobRecord> JobStore::list(const std::string& search, int64_t limit, const std::string& before) const {
  std::string sql = "SELECT record FROM jobs WHERE 1";
  std::vector<std::string> values;
  std::istringstream words(search);
  for (std::string word; words >> word && values.size() < 20;) {
    sql += " AND words LIKE ? ESCAPE '\\'";
    values.push_back(like_pattern(word));
  }
  if (!before.empty()) {
    sql += " AND id < ?";
    values.push_back(before);
  }
  sql += fmt::format(" ORDER BY id DESC LIMIT {}", limit);
  const std::lock_guard guard(lock_);
  std::vector<JobRecord> jobs;
  const Statement all = prepared(index_->db.get(), sql, values);
  while (all && sqlite3_step(all.get()) == SQLITE_ROW)
    if (auto job = record_in(column(all, 0))) jobs.push_back(std::move(*job));
  return jobs;
}

void JobStore::remove(const std::string& id) {
  const std::lock_guard guard(lock_);
  std::error_code none;
  if (is_job_id(id)) fs::remove_all(folder_ / id, none);  // first: on a full disk, the index needs the room
  const Statement gone = prepared(index_->db.get(), "DELETE FROM jobs WHERE id = ?", {id});
  if (gone) sqlite3_step(gone.get());
}

}  // namespace brume::tools
