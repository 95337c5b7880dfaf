// The world over c10d's ProcessGroupGloo. Gloo finds a killed process by its closed connections, which error it reports by address; which
// rank that was follows from who has stopped to report in the store (presence.h). A group that failed is never destroyed: its threads may
// wait for a lost process for ever.
#include "brume/distributed/c10d_world.h"

#include <fmt/format.h>

#include <stdexcept>

#ifdef BRUME_GLOO
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>
#include <gloo/context.h>
#include <torch/version.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <csignal>
#include <cstdlib>
#include <future>
#include <thread>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/distributed/completion.h"
#include "brume/distributed/presence.h"

namespace brume {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using Store = c10::intrusive_ptr<c10d::Store>;

constexpr milliseconds slice(500);    ///< between two looks at what other processes report
constexpr seconds unsuspected(5);     ///< of waiting, before the others are asked whether they live
constexpr seconds patience(20);       ///< for a process that reports nothing
constexpr seconds short_patience(5);  ///< for one of those of which a connection closed
constexpr seconds for_ever(30 * 86400);

/// Returns "ranks 1, 2" or "rank 1".
std::string ranks_text(const std::vector<int64_t>& ranks) {
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

struct TcpAddress {
  std::string host;
  int port = 0;
};

TcpAddress tcp_address(const std::string& address) {
  const std::string rest = address.substr(std::string("tcp://").size());
  const size_t colon = rest.rfind(':');
  const auto port = colon == rest.npos ? std::nullopt : parse_number<int>(std::string_view(rest).substr(colon + 1));
  if (!port || *port < 1 || *port > 65535 || colon == 0)
    throw ConfigError(fmt::format("rendezvous: '{}' is not like tcp://HOST:PORT", address));
  return {rest.substr(0, colon), *port};
}

Store tcp_store(const WorldPlace& place, seconds join) {
  const TcpAddress at = tcp_address(place.address);
  c10d::TCPStoreOptions options;
  options.port = uint16_t(at.port);
  options.isServer = place.rank == 0 && !place.hosted;
  options.numWorkers = size_t(place.size);
  options.waitWorkers = false;
  options.multiTenant = true;  // two stores per process
  options.timeout = join;
#if TORCH_VERSION_MAJOR >= 2
  options.useLibUV = false;  // torchrun's agents of all versions speak the older protocol
#endif
  try {
    return c10::make_intrusive<c10d::TCPStore>(at.host, options);
  } catch (const std::exception& e) {
    const std::string reason = std::string(e.what()).substr(0, std::string(e.what()).find('\n'));
    throw ConfigError(options.isServer
                          ? fmt::format("rendezvous: rank 0 cannot listen at {}: {}", place.address, reason)
                          : fmt::format("rendezvous: nobody answers at {} within {} s ({} waits there for {}): {}", place.address,
                                        join.count(), ranks_text({place.rank}), place.hosted ? "the launcher" : "rank 0", reason));
  }
}

Store open_store(const WorldPlace& place, seconds join) {
  Store store;
  if (place.address.starts_with("tcp://"))
    store = tcp_store(place, join);
  else if (place.address.starts_with("file:///"))
    store = c10::make_intrusive<c10d::FileStore>(place.address.substr(std::string("file://").size()), 2 * int(place.size));
  else
    throw ConfigError(fmt::format("rendezvous: '{}' is not like tcp://HOST:PORT or file:///PATH", place.address));
  return c10::make_intrusive<c10d::PrefixStore>(place.prefix + "/brume", store);
}

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

SharedKeys keys_of(const Store& store) {
  return {[store](const std::string& key, const std::string& value) { store->set(key, bytes_of(value)); },
          [store](const std::string& key) -> std::optional<std::string> {
            if (!store->check({key})) return std::nullopt;
            const std::vector<uint8_t> value = store->get(key);
            return std::string(value.begin(), value.end());
          }};
}

class Group final : public c10d::ProcessGroupGloo {
 public:
  using ProcessGroupGloo::ProcessGroupGloo;
  /// Turns off the time-out of gloo's own, which cannot name a rank.
  void never_time_out() {
    for (const auto& context : contexts_) context->setTimeout(for_ever);
  }
};
using GroupPtr = c10::intrusive_ptr<Group>;

std::shared_ptr<::gloo::transport::Device> device_for(const WorldPlace& place) {
  if (const char* interface = std::getenv("GLOO_SOCKET_IFNAME"))
    return Group::createDeviceForInterface(std::string(interface).substr(0, std::string(interface).find(',')));
  return place.local_size == place.size ? Group::createDeviceForHostname("127.0.0.1") : Group::createDefaultDevice();
}

/// Returns a tensor as gloo takes it: its bytes.
Tensor bytes(const Tensor& tensor) { return tensor.detach().flatten().view(at::kByte); }

class C10dWorld final : public World {
 public:
  C10dWorld(const WorldPlace& place, seconds join, seconds timeout) : World(place), timeout_(timeout) {
    struct sigaction now = {};
    if (::sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL)
      ::signal(SIGPIPE, SIG_IGN);  // stores write to closed sockets
    const Clock::time_point end = Clock::now() + join;
    watched_ = open_store(place, join);
    if (watched_->add(fmt::format("joined/{}", place.rank), 1) > 1)
      throw ConfigError(place.address.starts_with("file:")
                            ? fmt::format("rendezvous: {} is of an earlier job; remove the file", place.address)
                            : fmt::format("rendezvous: another process of {} joined as rank {} already", place.address, place.rank));
    presence_ = std::make_unique<Presence>(keys_of(watched_), place.rank, place.size);
    gather(end, join);
    connect(open_store(place, join));
  }

  ~C10dWorld() override {
    if (lost_) abandon();
  }

  std::unique_ptr<Pending> begin_all_reduce(const Tensor& tensor, Reduction reduction) override {
    return begin([&] {
      std::vector<at::Tensor> all{tensor.detach()};
      c10d::AllreduceOptions options;
      options.reduceOp = reduction == Reduction::sum ? c10d::ReduceOp::SUM : c10d::ReduceOp::MAX;
      return group_->allreduce(all, options);
    });
  }

  Tensor all_gather(const Tensor& tensor) override {
    const Tensor mine = tensor.detach().contiguous();
    std::vector<at::Tensor> all;
    for (int64_t r = 0; r < size(); ++r) all.push_back(at::empty_like(mine));
    if (mine.numel() > 0) {
      std::vector<at::Tensor> in{bytes(mine)};
      std::vector<std::vector<at::Tensor>> out(1);
      for (const at::Tensor& t : all) out[0].push_back(bytes(t));
      begin([&] { return group_->allgather(out, in); })->wait();
    }
    return at::stack(all);
  }

  std::unique_ptr<Pending> begin_broadcast(const Tensor& tensor, int64_t root) override {
    return begin([&] {
      std::vector<at::Tensor> all{bytes(tensor)};
      c10d::BroadcastOptions options;
      options.rootRank = int(root);
      return group_->broadcast(all, options);
    });
  }

  void barrier() override { all_reduce(at::zeros({1})); }

  void leave(const std::string& why) override {
    if (!lost_) presence_->report(fmt::format("rank {} ended: {}", rank(), why));
    lost_ = true;
  }

 private:
  using Work = c10::intrusive_ptr<c10d::Work>;

  struct Operation final : Pending {
    Operation(C10dWorld& w, Work o) : world(w), work(std::move(o)) {}
    void wait() override { world.settle(work); }
    C10dWorld& world;
    Work work;
  };

  template <class Start>
  std::unique_ptr<Pending> begin(const Start& start) {
    if (lost_) throw WorldError("the world of this process has ended");
    presence_->began_operation();
    try {
      return std::make_unique<Operation>(*this, start());
    } catch (const std::exception& e) {
      fail(e.what());
    }
  }

  /// Waits until all processes have set that they are here.
  void gather(Clock::time_point end, seconds join) {
    std::vector<int64_t> missing;
    do {
      missing = presence_->missing();
      if (missing.empty()) return;
      if (const std::string why = presence_->reported(); !why.empty()) throw WorldError(why);
      std::this_thread::sleep_for(milliseconds(50));
    } while (Clock::now() < end);
    throw ConfigError(fmt::format("rendezvous: {} did not come to {} within {} s; {} of {} came", ranks_text(missing), place_.address,
                                  join.count(), size() - int64_t(missing.size()), size()));
  }

  /// Connects to all processes on a thread of its own, which is left alone if one of them dies meanwhile.
  void connect(const Store& store) {
    auto made = std::make_shared<std::promise<GroupPtr>>();
    std::future<GroupPtr> group = made->get_future();
    std::thread([made, store, place = place_] {
      try {
        auto options = c10d::ProcessGroupGloo::Options::create(seconds(600));
        options->devices.push_back(device_for(place));
        options->threads = 2;
        made->set_value(c10::make_intrusive<Group>(store, int(place.rank), int(place.size), options));
      } catch (...) {
        made->set_exception(std::current_exception());
      }
    }).detach();
    watch([&] { return group.wait_for(slice) == std::future_status::ready; });
    try {
      group_ = group.get();
    } catch (const std::exception& e) {
      fail(e.what());
    }
    group_->never_time_out();
  }

  void settle(const Work& work) {
    try {
      watch([&] { return completes_within(*work, slice); });
    } catch (const WorldError&) {
      throw;
    } catch (const std::exception& e) {
      fail(e.what());
    }
  }

  /// Calls `done` until it returns true. Throws WorldError if meanwhile a process reports an end, lives no more, or is late.
  template <class Done>
  void watch(const Done& done) {
    const Clock::time_point begin = Clock::now();
    Clock::time_point next = begin + unsuspected;
    while (!done()) {
      std::string why;
      const Clock::time_point now = Clock::now();
      try {
        why = presence_->reported();
        if (why.empty() && now - begin > timeout_) {
          const std::vector<int64_t> late = presence_->behind();
          why = fmt::format("{} took no part in a step for {} s (train.timeout)", late.empty() ? "a rank" : ranks_text(late),
                            timeout_.count());
        } else if (why.empty() && now > next) {
          if (const std::vector<int64_t> silent = presence_->silent(patience); !silent.empty()) why = lost_ranks(silent);
          next = Clock::now() + unsuspected;
        }
      } catch (const std::exception&) {
        why = store_gone();
      }
      if (!why.empty()) end(why);
    }
  }

  static std::string lost_ranks(const std::vector<int64_t>& ranks) {
    return fmt::format("{} {} no more", ranks_text(ranks), ranks.size() == 1 ? "answers" : "answer");
  }
  std::string store_gone() const {
    return place_.hosted                        ? "the launcher answers no more"
           : place_.address.starts_with("tcp:") ? lost_ranks({0})
                                                : "the file of the rendezvous is gone";
  }

  /// Finds out which process an operation failed for.
  [[noreturn]] void fail(const std::string& error) {
    std::string why;
    try {
      why = presence_->reported();
      if (why.empty()) {
        const std::vector<int64_t> silent = presence_->silent(short_patience);
        why = presence_->reported();
        if (why.empty() && !silent.empty()) why = lost_ranks(silent);
      }
    } catch (const std::exception&) {
      why = store_gone();
    }
    if (why.empty()) why = fmt::format("a collective operation failed: {}", error.substr(0, error.find('\n')));
    end(why);
  }

  [[noreturn]] void end(const std::string& why) {
    lost_ = true;
    presence_->report(why);
    throw WorldError(why);
  }

  void abandon() { group_.release(); }

  seconds timeout_;
  Store watched_;  ///< of presence_ alone: gloo's store blocks
  std::unique_ptr<Presence> presence_;
  GroupPtr group_;
  bool lost_ = false;
};

}  // namespace

std::string world_backend() { return "gloo"; }

std::shared_ptr<World> c10d_world(const WorldPlace& place, seconds join, seconds timeout) {
  return std::make_shared<C10dWorld>(place, join, timeout);
}

}  // namespace brume

#else

namespace brume {

std::string world_backend() { return ""; }

std::shared_ptr<World> c10d_world(const WorldPlace&, std::chrono::seconds, std::chrono::seconds) {
  throw std::logic_error("this build has no gloo");
}

}  // namespace brume

#endif
