// The world that launchers describe in the environment.
#include "brume/distributed/launcher.h"

#include <gtest/gtest.h>

#include <map>

#include "brume/config/errors.h"
#include "brume/distributed/host_list.h"

namespace brume {
namespace {

using Variables = std::map<std::string, std::string>;

Launch found(const Variables& variables, const Rendezvous& given = {}) {
  return find_launch(
      [&](const char* name) {
        const auto at = variables.find(name);
        return at == variables.end() ? std::nullopt : std::optional(at->second);
      },
      given);
}

std::string error_of(const Variables& variables, const Rendezvous& given = {}) {
  try {
    found(variables, given);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "";
}

/// "launcher rank/size local rank/local size address prefix hosted"
std::string shown(const Launch& launch) {
  const WorldPlace& p = launch.place;
  return launch.launcher + " " + std::to_string(p.rank) + "/" + std::to_string(p.size) + " " + std::to_string(p.local_rank) + "/" +
         std::to_string(p.local_size) + " " + p.address + p.prefix + (p.hosted ? " hosted" : "");
}

Variables with(Variables base, const Variables& more) {
  for (const auto& [name, value] : more) base[name] = value;
  return base;
}

const Variables torchrun{
    {"RANK", "3"},           {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"},          {"LOCAL_WORLD_SIZE", "2"},          {"MASTER_ADDR", "h1"},
    {"MASTER_PORT", "1234"}, {"GROUP_RANK", "1"}, {"TORCHELASTIC_RUN_ID", "7"}, {"TORCHELASTIC_RESTART_COUNT", "2"}};
const Variables slurm{{"SLURM_PROCID", "2"},
                      {"SLURM_NTASKS", "6"},
                      {"SLURM_LOCALID", "0"},
                      {"SLURM_NODEID", "1"},
                      {"SLURM_JOB_ID", "45"},
                      {"SLURM_STEP_ID", "0"},
                      {"SLURM_TASKS_PER_NODE", "2,1,3"},
                      {"SLURM_JOB_NODELIST", "n[009-011]"}};
const Variables mpi{
    {"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};

TEST(HostList, IsExpandedAsSlurmDoes) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(hosts_in("n[001-003,7],login", "L"), (Names{"n001", "n002", "n003", "n7", "login"}));
  EXPECT_EQ(hosts_in("r[1-2]n[08-09]-ib", "L"), (Names{"r1n08-ib", "r1n09-ib", "r2n08-ib", "r2n09-ib"}));
  EXPECT_EQ(hosts_in("n[9-11]", "L"), (Names{"n9", "n10", "n11"}));
  EXPECT_EQ(tasks_per_host("2(x3),1", "L"), (std::vector<int64_t>{2, 2, 2, 1}));
}

TEST(HostList, IsRefusedIfItCannotBeRead) {
  for (const char* list : {"", "n[1", "n1]", "n[2-1]", "n[a]", "n[]", "a,,b", "n[[1]]", "n[0-4000000000]"})
    EXPECT_THROW(hosts_in(list, "L"), ConfigError) << list;
  for (const char* list : {"", "2(x)", "2(x0)", "(x2)", "2(3)", "a", "1(x4000000000)"})
    EXPECT_THROW(tasks_per_host(list, "L"), ConfigError) << list;
}

TEST(Launcher, AProcessThatIsStartedAloneIsAWorldOfOne) {
  EXPECT_EQ(shown(found({})), " 0/1 0/1 ");
  EXPECT_EQ(shown(found({{"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "3"}})), " 0/1 0/1 ");  // a shell of salloc
}

TEST(Launcher, ReadsTorchrun) {
  EXPECT_EQ(shown(found(torchrun)), "torchrun 3/4 1/2 tcp://h1:1234");
  EXPECT_EQ(shown(found(with(torchrun, {{"RANK", "0"}}))), "torchrun 0/4 1/2 tcp://h1:1234");
  // The agent serves the store, also to rank 0, and keys are those of this attempt.
  EXPECT_EQ(shown(found(with(torchrun, {{"RANK", "0"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}}))),
            "torchrun 0/4 1/2 tcp://h1:1234/worker/attempt_2 hosted");
}

TEST(Launcher, ReadsSlurm) {
  EXPECT_EQ(shown(found(slurm)), "Slurm 2/6 0/1 tcp://n009:15045");
  EXPECT_EQ(shown(found(with(slurm, {{"SLURM_PROCID", "0"}, {"SLURM_NODEID", "0"}, {"SLURM_JOB_ID", "20000"}}))),
            "Slurm 0/6 0/2 tcp://n009:15000");
  EXPECT_EQ(shown(found(with(slurm, {{"SLURM_STEP_NODELIST", "m5"}, {"MASTER_PORT", "99"}}))), "Slurm 2/6 0/1 tcp://127.0.0.1:99");
  EXPECT_EQ(found(with(slurm, {{"SLURM_STEP_NUM_TASKS", "4"}})).place.size, 4);  // `srun -n 4` in a job of 6 tasks
}

TEST(Launcher, ReadsMpi) {
  const Launch open_mpi = found(with(mpi, {{"PMIX_NAMESPACE", "77@1"}, {"PMIX_RANK", "1"}}));
  EXPECT_EQ(shown(open_mpi).substr(0, 33), "Open MPI 1/2 1/2 tcp://127.0.0.1:");
  EXPECT_NE(open_mpi.place.address, found(with(mpi, {{"PMIX_NAMESPACE", "78@1"}})).place.address);
  EXPECT_EQ(shown(found({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}})),
            "MPICH 1/2 1/2 tcp://127.0.0.1:29500");
  const Variables two_hosts = with(mpi, {{"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}});
  EXPECT_EQ(
      error_of(two_hosts, {.mark = "--"}),
      "Open MPI starts processes on several machines and names none of them: set MASTER_ADDR to the host of rank 0, or use --rendezvous");
  EXPECT_EQ(shown(found(with(two_hosts, {{"MASTER_ADDR", "a"}, {"MASTER_PORT", "5"}}))), "Open MPI 1/2 1/1 tcp://a:5");
  EXPECT_EQ(shown(found(two_hosts, {.address = "file:///s/x"})), "Open MPI 1/2 1/1 file:///s/x");
}

TEST(Launcher, TakesTheSizeOfPmixFromSlurm) {
  EXPECT_EQ(shown(found(with(slurm, {{"PMIX_RANK", "2"}}))), "Slurm 2/6 0/1 tcp://n009:15045");
  EXPECT_EQ(error_of({{"PMIX_RANK", "2"}}), "PMIx PMIX_RANK=2 says no number of processes: start them by srun or mpirun");
}

TEST(Launcher, TakesTheUsersWord) {
  const auto given = [](std::string address) { return Rendezvous{std::move(address), 1, 3, "--"}; };
  EXPECT_EQ(shown(found({}, given("file:///s/x"))), " 1/3 0/1 file:///s/x");
  EXPECT_EQ(shown(found({}, given("tcp://[::1]:80"))), " 1/3 0/1 tcp://::1:80");
  EXPECT_EQ(shown(found(slurm, {.address = "tcp://h:80", .mark = "--"})), "Slurm 2/6 0/1 tcp://h:80");
  for (const char* wrong : {"tcp://h", "tcp://:8", "tcp://h:0", "tcp://h:99999", "http://h:8", "file://x", "x"})
    EXPECT_NE(error_of({}, given(wrong)).find("is neither file:///PATH nor tcp://HOST:PORT"), std::string::npos) << wrong;
  EXPECT_EQ(error_of({}, given("")), "--world 3: needs --rendezvous, through which the processes find each other");
  EXPECT_EQ(shown(found({}, {.rank = 1, .world = 3, .needed = false})), " 1/3 0/1 ");
  EXPECT_EQ(error_of({}, {.rank = 1, .world = 3, .mark = "--"}),
            "--world 3: needs --rendezvous, through which the processes find each other");
  EXPECT_EQ(error_of({}, {.address = "tcp://h:8", .rank = 1, .mark = "--"}), "--rank is given, and --world is not");
  EXPECT_EQ(error_of({}, {.address = "tcp://h:8", .mark = "--"}), "--rendezvous tcp://h:8: needs --rank and --world");
}

TEST(Launcher, RefusesTwoThatContradictEachOther) {
  const std::string message = error_of(with(slurm, mpi));
  EXPECT_EQ(message,
            "two launchers contradict each other: Slurm SLURM_PROCID=2 SLURM_NTASKS=6 and Open MPI OMPI_COMM_WORLD_RANK=1 "
            "OMPI_COMM_WORLD_SIZE=2; start the processes by one of them, or unset the variables of the other");
  EXPECT_NE(error_of(torchrun, {.rank = 1, .world = 4, .mark = "--"}).find("--rank=1 --world=4 and torchrun RANK=3 WORLD_SIZE=4"),
            std::string::npos);
  EXPECT_NE(error_of(with(torchrun, slurm)).find("torchrun RANK=3 WORLD_SIZE=4 and Slurm SLURM_PROCID=2"), std::string::npos);
}

TEST(Launcher, AcceptsTorchrunWithinSlurm) {
  // Two agents, one per node, as tasks of Slurm; a batch script that starts torchrun without srun.
  EXPECT_EQ(found(with(with(slurm, torchrun), {{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}})).place.rank, 3);
  Variables batch = with(slurm, {{"SLURM_PROCID", "0"}});
  batch.erase("SLURM_STEP_ID");
  EXPECT_EQ(shown(found(with(batch, torchrun))), "torchrun 3/4 1/2 tcp://h1:1234");
}

TEST(Launcher, NamesAVariableThatIsWrong) {
  EXPECT_EQ(error_of({{"RANK", "x"}, {"WORLD_SIZE", "2"}}), "RANK = 'x' is no whole number from 0 to 2147483647");
  EXPECT_EQ(error_of({{"WORLD_SIZE", "2"}}), "WORLD_SIZE is set, and RANK is not");
  EXPECT_EQ(error_of({{"RANK", "2"}, {"WORLD_SIZE", "2"}}),
            "the environment RANK=2 WORLD_SIZE=2: the rank is not below the number of processes 2");
  EXPECT_EQ(error_of({{"RANK", "1"}, {"WORLD_SIZE", "2"}}), "WORLD_SIZE = 2 is set, and MASTER_ADDR is not");
}

}  // namespace
}  // namespace brume
