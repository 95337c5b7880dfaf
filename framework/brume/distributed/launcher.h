#pragma once
// Finds which process of which world this one is, from what its launcher set in the environment.
//
// torchrun (PyTorch, "torchrun (Elastic Launch)"), Slurm's srun(1), Open MPI's mpirun(1), MPICH's and Intel's Hydra, and PMIx are known.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "brume/distributed/world.h"

namespace brume {

/// Returns the value of a variable of the environment; nothing if it is not set.
using Environment = std::function<std::optional<std::string>(const char* name)>;
/// Returns the environment of this process.
std::optional<std::string> process_environment(const char* name);

/// What the user says of the world, instead of a launcher or in addition to it.
struct Rendezvous {
  std::string address{};           ///< "file:///shared/run1" or "tcp://host:port"; "" = as the launcher says
  std::optional<int64_t> rank{};   ///< of this process, from 0
  std::optional<int64_t> world{};  ///< number of processes
  std::string mark{};              ///< what messages put before "rendezvous", "rank" and "world": "--" of a command line
  bool needed = true;              ///< false: the processes do not talk to each other, and `place.address` stays empty
};

/// This process among those that it was started with.
struct Launch {
  std::string launcher{};  ///< "torchrun", "Slurm", ...; "" = the user alone, or started alone
  WorldPlace place{};
};

/// Returns what the user and the environment say. The user's words win over torchrun, torchrun over Slurm, Slurm over MPI, if they agree.
/// Throws ConfigError naming both if two of them give this process another rank or another number of processes, and if a variable is
/// missing or has a wrong value.
///
/// torchrun's agents may be tasks of Slurm or MPI: these then count agents, and contradict only if their number is another. Variables of a
/// batch script of Slurm (no step, task 0) contradict nobody.
Launch find_launch(const Environment& environment, const Rendezvous& given = {});

}  // namespace brume
