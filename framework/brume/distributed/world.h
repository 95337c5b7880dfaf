#pragma once
// The processes of one job that compute together, as one of them sees them.
#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "brume/core/tensor.h"

namespace brume {

/// Which process of a job this one is, and how it finds the others.
struct WorldPlace {
  int64_t rank = 0, size = 1;
  int64_t local_rank = 0, local_size = 1;  ///< among the processes of this machine
  std::string address{};                   ///< "tcp://HOST:PORT" or "file:///PATH"; unused in a world of one
  bool hosted = false;                     ///< the launcher hosts the TCP store; false: rank 0 does
  std::string prefix{};                    ///< of the store's keys, like torchrun's "/worker/attempt_0"
};

/// Numbers from `begin` to below `end`.
struct NumberRange {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
};

/// Returns the numbers below `count` that one of several processes works on: equal parts by rank, one after the other.
NumberRange part_of(const WorldPlace& place, int64_t count);

/// Thrown if a process of the world failed, left or does not answer. The message names its rank.
class WorldError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Collective operations: all processes call the same ones in the same order, from one thread each. They throw WorldError if a process is
/// lost, within 30 s of its death, or if one does not take part within the time-out of join_world().
class World {
 public:
  enum class Reduction { sum, max };

  /// A collective operation in progress.
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual void wait() = 0;
  };

  virtual ~World() = default;
  int64_t rank() const { return place_.rank; }
  int64_t size() const { return place_.size; }
  int64_t local_rank() const { return place_.local_rank; }
  int64_t local_size() const { return place_.local_size; }
  /// Returns the numbers below `count` that this process works on, as part_of().
  NumberRange part(int64_t count) const { return part_of(place_, count); }
  /// Returns true for rank 0, which writes the files and reports.
  bool leads() const { return place_.rank == 0; }

  /// Replaces a tensor of each process by the sum or maximum over all processes: the same bits on each. Tensors: contiguous, on the CPU,
  /// of the same shape and dtype on each process.
  virtual std::unique_ptr<Pending> begin_all_reduce(const Tensor& tensor, Reduction reduction) = 0;
  void all_reduce(const Tensor& tensor, Reduction reduction = Reduction::sum) { begin_all_reduce(tensor, reduction)->wait(); }
  /// Returns [size, ...]: the tensors of all processes, by rank. Requirements as for all_reduce().
  virtual Tensor all_gather(const Tensor& tensor) = 0;
  /// Returns tensors [n, ...] of all processes one after the other, by rank; n may differ.
  Tensor all_gather_rows(const Tensor& rows);
  /// Returns the texts of all processes, by rank.
  std::vector<std::string> all_gather(const std::string& text);
  /// Overwrites a tensor by that of rank `root`. Requirements as for all_reduce().
  virtual std::unique_ptr<Pending> begin_broadcast(const Tensor& tensor, int64_t root) = 0;
  void broadcast(const Tensor& tensor, int64_t root = 0) { begin_broadcast(tensor, root)->wait(); }
  /// Returns when all processes have called it.
  virtual void barrier() = 0;
  /// Tells the other processes that this one ends before its time, and why: their next collective operation throws WorldError with it.
  virtual void leave(const std::string& why) = 0;

 protected:
  explicit World(const WorldPlace& place) : place_(place) {}
  WorldPlace place_;
};

/// Returns the world of one process, whose operations do nothing.
std::shared_ptr<World> world_of_one();

/// Joins the processes of a job. Returns when all have joined; world_of_one() if the size is 1. Throws ConfigError if this build has no
/// processes to join (world_backend() is empty), if the address is malformed or its file is of an earlier job, and, with the ranks that are
/// missing, if they do not join within `join`. `timeout`: the longest that a collective operation waits for a process.
std::shared_ptr<World> join_world(const WorldPlace& place, std::chrono::seconds join = std::chrono::seconds(300),
                                  std::chrono::seconds timeout = std::chrono::seconds(1800));

/// Returns "gloo", or "" if this build was made without it and every world is of one process.
std::string world_backend();

}  // namespace brume
