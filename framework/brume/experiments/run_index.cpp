#include "brume/experiments/run_index.h"

#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <map>
#include <memory>
#include <optional>

#include "brume/config/errors.h"
#include "brume/experiments/packed_record.h"

namespace brume {
namespace fs = std::filesystem;
namespace {

constexpr int layout = 2;  ///< of the index; another one is made again

struct Close {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, Close>;
using Statement = std::unique_ptr<sqlite3_stmt, Close>;

struct Noted {
  std::string stamp, record;
};

Statement prepared(sqlite3* db, const char* sql) {
  sqlite3_stmt* statement = nullptr;
  return sqlite3_prepare_v2(db, sql, -1, &statement, nullptr) == SQLITE_OK ? Statement(statement) : Statement();
}

bool execute(sqlite3* db, const std::string& sql) { return sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK; }

std::string column(sqlite3_stmt* statement, int i) {
  const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement, i));
  return bytes ? std::string(bytes, size_t(sqlite3_column_bytes(statement, i))) : std::string();
}

std::optional<int> user_version(sqlite3* db) {
  const Statement version = prepared(db, "PRAGMA user_version");
  if (!version || sqlite3_step(version.get()) != SQLITE_ROW) return {};
  return sqlite3_column_int(version.get(), 0);
}

/// Opens the index if it is whole and of this layout.
Database opened(const fs::path& file) {
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(file.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  Database db(raw);
  if (code != SQLITE_OK) return {};
  sqlite3_busy_timeout(raw, 2000);
  const std::optional<int> version = user_version(raw);
  if (!version || (*version != 0 && *version != layout)) return {};
  const bool whole = execute(raw, "PRAGMA synchronous = OFF") &&
                     execute(raw, "CREATE TABLE IF NOT EXISTS runs (name TEXT PRIMARY KEY, stamp TEXT, record BLOB)") &&
                     execute(raw, fmt::format("PRAGMA user_version = {}", layout)) && prepared(raw, "SELECT name, stamp, record FROM runs");
  return whole ? std::move(db) : Database();
}

/// Returns the rows of the index; nothing if it is damaged.
std::optional<std::map<std::string, Noted>> rows_of(sqlite3* db) {
  std::map<std::string, Noted> rows;
  const Statement all = prepared(db, "SELECT name, stamp, record FROM runs");
  int code = SQLITE_ERROR;
  while (all && (code = sqlite3_step(all.get())) == SQLITE_ROW) rows[column(all.get(), 0)] = {column(all.get(), 1), column(all.get(), 2)};
  if (code != SQLITE_DONE) return {};
  return rows;
}

void write(sqlite3* db, const std::map<std::string, Noted>& changed, const std::vector<std::string>& gone) {
  if (changed.empty() && gone.empty()) return;
  if (!execute(db, "BEGIN IMMEDIATE")) return;  // another process has it: it is brought up to date next time
  const Statement put = prepared(db, "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)"),
                  remove = prepared(db, "DELETE FROM runs WHERE name = ?");
  const auto bind = [](const Statement& s, int i, const std::string& text) {
    sqlite3_bind_text(s.get(), i, text.data(), int(text.size()), SQLITE_TRANSIENT);
  };
  for (const auto& [name, noted] : changed) {
    if (!put) break;
    bind(put, 1, name), bind(put, 2, noted.stamp);
    sqlite3_bind_blob(put.get(), 3, noted.record.data(), int(noted.record.size()), SQLITE_TRANSIENT);
    sqlite3_step(put.get());
    sqlite3_reset(put.get());
  }
  for (const std::string& name : gone) {
    if (!remove) break;
    bind(remove, 1, name);
    sqlite3_step(remove.get());
    sqlite3_reset(remove.get());
  }
  execute(db, "COMMIT");
}

/// Returns the sizes and times of the files that a record is read from.
std::string stamp_of(const fs::path& run) {
  std::map<std::string, std::string> all;
  std::error_code error;
  for (auto entry = fs::directory_iterator(run, error); !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name != "config.yaml" && name != "metrics.jsonl" && name != "training.safetensors" && !name.ends_with(".json")) continue;
    struct stat s = {};
    if (::stat(entry->path().c_str(), &s) == 0)
      all[name] = fmt::format("{} {} {} {}.{:09}", name, s.st_ino, s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  }
  std::string stamp;
  for (const auto& [name, text] : all) stamp += text + "\n";
  return stamp;
}

std::string name_in(const fs::path& run, const fs::path& directory) {
  const std::string name = run.lexically_relative(directory).string();
  return name == "." || name.empty() ? fs::absolute(directory).lexically_normal().filename().string() : name;
}

}  // namespace

std::vector<RunRecord> list_runs(const fs::path& directory) {
  const std::vector<fs::path> found = find_runs(directory);
  const fs::path file = directory / run_index_name;
  const bool itself = found.size() == 1 && found.front() == directory;  // a run directory gets no index
  Database db = itself ? Database() : opened(file);
  auto rows = db ? rows_of(db.get()) : std::nullopt;
  if (!itself && !rows) {
    db.reset();
    std::error_code none;
    fs::remove(file, none);
    db = opened(file);
    rows = db ? rows_of(db.get()) : std::nullopt;
  }
  std::map<std::string, Noted> known = rows.value_or(std::map<std::string, Noted>()), changed;
  std::vector<RunRecord> all;
  for (const fs::path& run : found) {
    const std::string name = name_in(run, directory), stamp = stamp_of(run);
    const auto noted = known.find(name);
    std::optional<RunRecord> record;
    if (noted != known.end() && noted->second.stamp == stamp) try {
        record = unpacked_record(noted->second.record);
      } catch (const ConfigError&) {
        record.reset();
      }
    if (!record) {
      record = read_run(run, name);
      changed[name] = {stamp, packed_record(*record)};
    }
    if (noted != known.end()) known.erase(noted);
    all.push_back(std::move(*record));
  }
  std::vector<std::string> gone;
  for (const auto& [name, noted] : known) gone.push_back(name);
  if (db) write(db.get(), changed, gone);
  return all;
}

}  // namespace brume
