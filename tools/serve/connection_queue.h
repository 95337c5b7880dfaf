#pragma once
// The threads that serve connections. Includes cpp-httplib: for http_server.cpp alone.
#include <httplib.h>
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <vector>

namespace brume::tools {

/// Set while a connection is served that is one too many.
inline thread_local bool refusing = false;

/// Gives memory of this thread's stack back that deeper calls have used.
class StackPages {
 public:
  StackPages() {
    pthread_attr_t own;
    size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &own) != 0) return;
    if (pthread_attr_getstack(&own, &low_, &size) != 0) low_ = nullptr;
    pthread_attr_destroy(&own);
  }
  void release() const {
    const char here = 0;
    const uintptr_t low = reinterpret_cast<uintptr_t>(low_), end = (reinterpret_cast<uintptr_t>(&here) - kept) / page * page;
    if (low_ && low < end) ::madvise(low_, end - low, MADV_DONTNEED);
  }

 private:
  static constexpr uintptr_t kept = 64 << 10, page = 64 << 10;
  void* low_ = nullptr;
};

/// Serves connections on a fixed number of threads. At most `most` wait for one; those beyond are served by the thread that accepts them,
/// which finds `refusing` set. `waiting` counts those that wait.
class ConnectionQueue final : public httplib::TaskQueue {
  using Enqueued = decltype(std::declval<httplib::TaskQueue&>().enqueue(std::function<void()>()));  ///< bool in later versions

 public:
  ConnectionQueue(size_t threads, size_t most, std::atomic<size_t>& waiting) : most_(most), waiting_(waiting) {
    // The library matches headers by std::regex, whose depth grows with their length.
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, size_t(16) << 20);
    for (size_t i = 0; i < threads; ++i) {
      pthread_t thread{};
      if (pthread_create(&thread, &attributes, work, this) != 0) break;
      threads_.push_back(thread);
    }
    pthread_attr_destroy(&attributes);
    if (threads_.empty()) throw std::runtime_error("the server can start no thread");
  }

  Enqueued enqueue(std::function<void()> serve) override {
    if (!waits(serve)) {
      refusing = true;
      serve();
      refusing = false;
    }
    return Enqueued(true);
  }

  void shutdown() override {
    {
      const std::lock_guard guard(lock_);
      ended_ = true;
    }
    changed_.notify_all();
    for (const pthread_t thread : threads_) pthread_join(thread, nullptr);
    threads_.clear();
  }

 private:
  bool waits(std::function<void()>& serve) {
    const std::lock_guard guard(lock_);
    if (connections_.size() >= most_) return false;
    connections_.push_back(std::move(serve));
    waiting_ = connections_.size();
    changed_.notify_one();
    return true;
  }
  static void* work(void* self) {
    static_cast<ConnectionQueue*>(self)->serve_all();
    return nullptr;
  }
  void serve_all() {
    const StackPages stack;
    for (;;) {
      std::unique_lock guard(lock_);
      changed_.wait(guard, [&] { return ended_ || !connections_.empty(); });
      if (connections_.empty()) return;
      const std::function<void()> serve = std::move(connections_.front());
      connections_.pop_front();
      waiting_ = connections_.size();
      guard.unlock();
      serve();
      stack.release();  // a request with a long header has taken megabytes
    }
  }

  const size_t most_;
  std::atomic<size_t>& waiting_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> connections_;
  bool ended_ = false;
  std::vector<pthread_t> threads_;
};

}  // namespace brume::tools
