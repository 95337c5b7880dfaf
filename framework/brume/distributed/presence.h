#pragma once
// Which processes of a job are alive and how far they are, as they report it in the store of the job.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace brume {

/// What Presence needs of a store; each may throw if the store is gone. Called from two threads, never at once.
struct SharedKeys {
  std::function<void(const std::string& key, const std::string& value)> set;
  std::function<std::optional<std::string>(const std::string& key)> get;  ///< nothing if it is not set
};

/// Reports once per second, on a thread, that this process lives and how many collective operations it has begun.
class Presence {
 public:
  Presence(SharedKeys keys, int64_t rank, int64_t size);
  ~Presence();
  Presence(const Presence&) = delete;
  Presence& operator=(const Presence&) = delete;

  /// Returns the ranks that have not set "here" yet; sets that of this process.
  std::vector<int64_t> missing();
  void began_operation() { ++operations_; }

  /// Tells all processes why the job ends, unless one has done so.
  void report(const std::string& why);
  /// Returns what a process reported; "" if none has. Throws if the store is gone.
  std::string reported();
  /// Returns the ranks that report nothing for as long as `patience`; returns at once when all others have. Throws if the store is gone.
  std::vector<int64_t> silent(std::chrono::milliseconds patience);
  /// Returns the ranks that have begun fewer operations than the process that is furthest. Throws if the store is gone.
  std::vector<int64_t> behind();

 private:
  std::optional<std::string> get(const std::string& key);
  void beat();

  SharedKeys keys_;
  const int64_t rank_, size_;
  std::atomic<uint64_t> operations_{0};
  std::mutex store_mutex_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace brume
