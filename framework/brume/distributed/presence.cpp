#include "brume/distributed/presence.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "brume/config/number.h"

namespace brume {
namespace {

constexpr auto period = std::chrono::seconds(1);
constexpr const char* report_key = "report";

std::string here_key(int64_t rank) { return fmt::format("here/{}", rank); }
std::string beat_key(int64_t rank) { return fmt::format("beat/{}", rank); }

/// Returns the number of operations of a beat, "BEAT OPERATIONS".
uint64_t operations_of(const std::string& beat) {
  return parse_number<uint64_t>(std::string_view(beat).substr(std::min(beat.size(), beat.find(' ') + 1))).value_or(0);
}

}  // namespace

Presence::Presence(SharedKeys keys, int64_t rank, int64_t size) : keys_(std::move(keys)), rank_(rank), size_(size) {
  thread_ = std::thread([this] { beat(); });
}

Presence::~Presence() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_all();
  thread_.join();
}

void Presence::beat() {
  std::unique_lock lock(mutex_);
  for (uint64_t i = 0; !end_; ++i) {
    try {
      const std::lock_guard store(store_mutex_);
      keys_.set(beat_key(rank_), fmt::format("{} {}", i, operations_.load()));
    } catch (const std::exception&) {  // if the store is gone, whoever waits for others finds out
    }
    ended_.wait_for(lock, period, [&] { return end_; });
  }
}

std::optional<std::string> Presence::get(const std::string& key) {
  const std::lock_guard store(store_mutex_);
  return keys_.get(key);
}

std::vector<int64_t> Presence::missing() {
  {
    const std::lock_guard store(store_mutex_);
    keys_.set(here_key(rank_), "1");
  }
  std::vector<int64_t> all;
  for (int64_t r = 0; r < size_; ++r)
    if (r != rank_ && !get(here_key(r))) all.push_back(r);
  return all;
}

void Presence::report(const std::string& why) {
  try {
    if (get(report_key)) return;
    const std::lock_guard store(store_mutex_);
    keys_.set(report_key, why);
  } catch (const std::exception&) {  // the others find that the store is gone
  }
}

std::string Presence::reported() { return get(report_key).value_or(""); }

std::vector<int64_t> Presence::silent(std::chrono::milliseconds patience) {
  std::map<int64_t, std::string> before;
  for (int64_t r = 0; r < size_; ++r)
    if (r != rank_) before[r] = get(beat_key(r)).value_or("");
  const auto end = std::chrono::steady_clock::now() + patience;
  while (!before.empty() && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    std::erase_if(before, [&](const auto& b) { return get(beat_key(b.first)).value_or("") != b.second; });
  }
  std::vector<int64_t> all;
  for (const auto& [rank, _] : before) all.push_back(rank);
  return all;
}

std::vector<int64_t> Presence::behind() {
  std::map<int64_t, uint64_t> operations{{rank_, operations_.load()}};
  for (int64_t r = 0; r < size_; ++r)
    if (r != rank_) operations[r] = operations_of(get(beat_key(r)).value_or(""));
  uint64_t most = 0;
  for (const auto& [_, count] : operations) most = std::max(most, count);
  std::vector<int64_t> all;
  for (const auto& [rank, count] : operations)
    if (count < most) all.push_back(rank);
  return all;
}

}  // namespace brume
