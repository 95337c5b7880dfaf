#include "brume/distributed/launcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/number.h"
#include "brume/core/fnv.h"
#include "brume/distributed/host_list.h"

namespace brume {
namespace {

using Number = std::optional<int64_t>;

constexpr const char* by_hand = "the environment";    ///< whose variables torchrun would set
constexpr uint16_t default_port = 29500;              ///< of torch.distributed
constexpr int64_t first_port = 15000, ports = 20000;  ///< among which jobs are spread
constexpr int64_t most_processes = std::numeric_limits<int32_t>::max();

/// What one launcher says. `rank_name` and `size_name` are the variables that it says it by.
struct Claim {
  std::string launcher, rank_name, size_name;
  Number rank{}, size{};
  int64_t local_rank = 0, local_size = 1;
  std::string text() const {
    std::string text = launcher;
    if (rank) text += fmt::format(" {}={}", rank_name, *rank);
    if (size) text += fmt::format(" {}={}", size_name, *size);
    return launcher.empty() ? text.substr(1) : text;
  }
};

/// Reads variables of an environment.
class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  std::string text(const char* name) const { return environment_(name).value_or(""); }
  bool has(const char* name) const { return !text(name).empty(); }

  /// Returns a whole number from `low` on; nothing if the variable is not set. Throws ConfigError if it is another text.
  Number number(const char* name, int64_t low = 0, int64_t high = most_processes) const {
    const std::string value = text(name);
    if (value.empty()) return {};
    const auto parsed = parse_number<int64_t>(value);
    if (!parsed || *parsed < low || *parsed > high)
      throw ConfigError(fmt::format("{} = '{}' is no whole number from {} to {}", name, value, low, high));
    return parsed;
  }

  /// Returns the number of the first variable that is set, and its name.
  std::pair<std::string, Number> first_number(std::initializer_list<const char*> names, int64_t low) const {
    for (const char* name : names)
      if (has(name)) return {name, number(name, low)};
    return {*names.begin(), {}};
  }

  /// Returns MASTER_PORT, or `otherwise`.
  uint16_t port(uint16_t otherwise) const { return uint16_t(number("MASTER_PORT", 1, 65535).value_or(otherwise)); }

 private:
  const Environment& environment_;
};

std::optional<Claim> torchrun(const Variables& v) {
  if (!v.has("RANK") && !v.has("WORLD_SIZE")) return {};
  Claim c{v.has("TORCHELASTIC_RUN_ID") ? "torchrun" : by_hand, "RANK", "WORLD_SIZE"};
  c.rank = v.number("RANK");
  c.size = v.number("WORLD_SIZE", 1);
  if (!c.rank || !c.size)
    throw ConfigError(fmt::format("{} is set, and {} is not", c.rank ? "RANK" : "WORLD_SIZE", c.rank ? "WORLD_SIZE" : "RANK"));
  c.local_rank = v.number("LOCAL_RANK").value_or(0);
  c.local_size = v.number("LOCAL_WORLD_SIZE", 1).value_or(1);
  return c;
}

std::optional<Claim> slurm(const Variables& v) {
  if (!v.has("SLURM_PROCID")) return {};
  const auto [name, size] = v.first_number({"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"}, 1);
  Claim c{"Slurm", "SLURM_PROCID", name};
  c.rank = v.number("SLURM_PROCID");
  c.size = size.value_or(1);
  c.local_rank = v.number("SLURM_LOCALID").value_or(0);
  for (const char* list : {"SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"}) {
    if (!v.has(list)) continue;
    const std::vector<int64_t> tasks = tasks_per_host(v.text(list), list);
    const int64_t node = v.number("SLURM_NODEID").value_or(0);
    if (node < int64_t(tasks.size())) c.local_size = tasks[size_t(node)];
    return c;
  }
  c.local_size = v.number("SLURM_NTASKS_PER_NODE", 1).value_or(v.number("SLURM_NNODES", 1).value_or(1) == 1 ? *c.size : 1);
  return c;
}

/// Reads the four variables that an MPI's launcher sets.
Claim mpi(const Variables& v, const char* launcher, const char* rank, const char* size, const char* local_rank, const char* local_size) {
  Claim c{launcher, rank, size};
  c.rank = v.number(rank);
  c.size = v.number(size, 1);
  c.local_rank = v.number(local_rank).value_or(0);
  c.local_size = v.number(local_size, 1).value_or(1);
  return c;
}

std::optional<Claim> open_mpi(const Variables& v) {
  if (!v.has("OMPI_COMM_WORLD_RANK")) return {};
  return mpi(v, "Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE");
}

std::optional<Claim> hydra(const Variables& v) {
  if (!v.has("PMI_RANK") || !v.has("PMI_SIZE")) return {};
  return mpi(v, "MPICH", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS");
}

std::optional<Claim> pmix(const Variables& v) {
  if (!v.has("PMIX_RANK")) return {};
  Claim c{"PMIx", "PMIX_RANK", ""};
  c.rank = v.number("PMIX_RANK");
  return c;
}

std::optional<Claim> users(const Variables& v, const Rendezvous& given) {
  if (!given.rank && !given.world) return {};
  Claim c{"", given.mark + "rank", given.mark + "world"};
  if (given.rank && *given.rank < 0) throw ConfigError(fmt::format("{} = {} is below 0", c.rank_name, *given.rank));
  if (given.world && *given.world < 1) throw ConfigError(fmt::format("{} = {} is below 1", c.size_name, *given.world));
  c.rank = given.rank, c.size = given.world;
  c.local_rank = v.number("LOCAL_RANK").value_or(0);
  c.local_size = v.number("LOCAL_WORLD_SIZE", 1).value_or(1);
  return c;
}

/// Returns true if `other` started the agents of torchrun, which started this process.
bool counts_agents(const Claim& torchrun, const Claim& other) {
  if (torchrun.launcher != "torchrun" || !other.size || other.launcher.empty()) return false;
  return *other.size == std::max<int64_t>(1, *torchrun.size / torchrun.local_size);
}

/// Returns true if Slurm's variables are those of a batch script, which starts processes by another launcher.
bool of_batch_script(const Claim& c, const Variables& v) {
  return c.launcher == "Slurm" && *c.rank == 0 && !v.has("SLURM_STEP_ID") && !v.has("SLURM_STEPID") && !v.has("SLURM_STEP_NUM_TASKS");
}

void check_agreement(const std::vector<Claim>& claims, const Variables& v) {
  for (size_t i = 0; i < claims.size(); ++i)
    for (size_t j = i + 1; j < claims.size(); ++j) {
      const Claim &a = claims[i], &b = claims[j];
      const bool agree = (!a.rank || !b.rank || *a.rank == *b.rank) && (!a.size || !b.size || *a.size == *b.size);
      if (agree || of_batch_script(b, v) || counts_agents(a, b)) continue;
      throw ConfigError(
          fmt::format("two launchers contradict each other: {} and {}; start the processes by one of them, or unset the "
                      "variables of the other",
                      a.text(), b.text()));
    }
}

/// Returns the port of a job that is named by a text.
uint16_t port_of(const std::string& job) { return uint16_t(first_port + int64_t(fnv1a(job) % uint64_t(ports))); }

std::string tcp(const std::string& host, uint16_t port) { return fmt::format("tcp://{}:{}", host, port); }

/// Returns "tcp://host:port" or "file:///path", as the user gives it.
std::string given_address(const Rendezvous& given) {
  const std::string_view text = given.address;
  const auto wrong = [&] {
    throw ConfigError(fmt::format("{}rendezvous {}: is neither file:///PATH nor tcp://HOST:PORT", given.mark, text));
  };
  if (text.starts_with("file:///") && text.size() > 8) return given.address;
  const size_t colon = text.rfind(':');
  if (!text.starts_with("tcp://") || colon < 7) wrong();
  const auto port = parse_number<uint16_t>(text.substr(colon + 1));
  if (!port || *port == 0) wrong();
  std::string host(text.substr(6, colon - 6));
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  return tcp(host, *port);
}

void set_torchrun_store(WorldPlace& place, const Variables& v) {
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT"})
    if (!v.has(name)) throw ConfigError(fmt::format("WORLD_SIZE = {} is set, and {} is not", place.size, name));
  place.address = tcp(v.text("MASTER_ADDR"), v.port(default_port));
  place.hosted = v.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  if (place.hosted) place.prefix = fmt::format("/worker/attempt_{}", v.number("TORCHELASTIC_RESTART_COUNT").value_or(0));
}

/// Returns MASTER_ADDR, or the first host of the job; a job of one host needs no name.
std::string slurm_host(const Variables& v) {
  if (v.has("MASTER_ADDR")) return v.text("MASTER_ADDR");
  for (const char* list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
    if (!v.has(list)) continue;
    const std::vector<std::string> hosts = hosts_in(v.text(list), list);
    return hosts.size() == 1 ? "127.0.0.1" : hosts.front();
  }
  throw ConfigError("SLURM_PROCID is set, and SLURM_JOB_NODELIST is not");
}

void set_mpi_store(Launch& launch, const Variables& v, const Rendezvous& given) {
  WorldPlace& place = launch.place;
  std::string job;
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"})
    if (job.empty()) job = v.text(name);
  if (!v.has("MASTER_ADDR") && place.local_size != place.size)
    throw ConfigError(
        fmt::format("{} starts processes on several machines and names none of them: set MASTER_ADDR to the host of rank 0, "
                    "or use {}rendezvous",
                    launch.launcher, given.mark));
  place.address = tcp(v.has("MASTER_ADDR") ? v.text("MASTER_ADDR") : "127.0.0.1", v.port(job.empty() ? default_port : port_of(job)));
}

void set_store(Launch& launch, const Variables& v, const Rendezvous& given) {
  WorldPlace& place = launch.place;
  if (!given.address.empty()) {
    place.address = given_address(given);
  } else if (launch.launcher == "torchrun" || launch.launcher == by_hand) {
    set_torchrun_store(place, v);
  } else if (launch.launcher == "Slurm") {
    place.address = tcp(slurm_host(v), v.port(uint16_t(first_port + v.number("SLURM_JOB_ID").value_or(0) % ports)));
  } else if (!launch.launcher.empty()) {
    set_mpi_store(launch, v, given);
  } else {
    throw ConfigError(
        fmt::format("{0}world {1}: needs {0}rendezvous, through which the processes find each other", given.mark, place.size));
  }
}

/// Lays what the launchers say over each other, the first one uppermost.
Launch merged(const std::vector<Claim>& claims) {
  Launch launch;
  const Claim* where = nullptr;
  Number rank, size;
  for (const Claim& c : claims) {
    if (!rank) rank = c.rank;
    if (!size) size = c.size;
    if (launch.launcher.empty() && (c.launcher != "PMIx" || claims.size() == 1)) launch.launcher = c.launcher;
    if (!where && !c.launcher.empty() && c.launcher != "PMIx") where = &c;
  }
  if (!where) where = &claims.front();
  const Claim& first = claims.front();
  if (!size && first.launcher == "PMIx")
    throw ConfigError(fmt::format("PMIx {}={} says no number of processes: start them by srun or mpirun", first.rank_name, *first.rank));
  if (!rank || !size)
    throw ConfigError(
        fmt::format("{} is given, and {} is not", rank ? first.rank_name : first.size_name, rank ? first.size_name : first.rank_name));
  if (*rank >= *size) throw ConfigError(fmt::format("{}: the rank is not below the number of processes {}", first.text(), *size));
  launch.place = {.rank = *rank, .size = *size, .local_rank = where->local_rank, .local_size = where->local_size};
  return launch;
}

}  // namespace

std::optional<std::string> process_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::optional<std::string>(value) : std::nullopt;
}

Launch find_launch(const Environment& environment, const Rendezvous& given) {
  const Variables v(environment);
  std::vector<Claim> claims;
  for (auto claim : {users(v, given), torchrun(v), slurm(v), open_mpi(v), hydra(v), pmix(v)})
    if (claim) claims.push_back(std::move(*claim));
  if (claims.empty()) {
    if (!given.address.empty()) throw ConfigError(fmt::format("{0}rendezvous {1}: needs {0}rank and {0}world", given.mark, given.address));
    return {};
  }
  check_agreement(claims, v);
  Launch launch = merged(claims);
  if (launch.place.size > 1 && (given.needed || !given.address.empty())) set_store(launch, v, given);
  return launch;
}

}  // namespace brume
