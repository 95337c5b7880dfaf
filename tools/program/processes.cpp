#include "program/processes.h"

#include <fmt/format.h>

#include <chrono>

#include "brume/config/errors.h"
#include "brume/config/foreign.h"
#include "brume/core/processors.h"
#include "program/progress.h"

namespace brume::tools {

void add_rendezvous(Command command, Rendezvous& given) {
  given.mark = "--";
  command.add_option("--rendezvous", given.address, "where the processes of a job find each other: tcp://HOST:PORT or file:///PATH")
      .type_name("ADDRESS");
  command.add_option("--rank", given.rank, "number of this process in a job, from 0, if no launcher says it");
  command.add_option("--world", given.world, "number of processes of the job, if no launcher says it");
}

namespace {

void share_machine(const WorldPlace& place, std::optional<int64_t>& threads) {
  if (place.size == 1) return;
  if (place.rank > 0) Progress::hide();
  if (!threads && place.local_size > 1) threads = threads_per_process(place.local_size);
}

}  // namespace

WorldPlace place_in_job(const Rendezvous& given, std::optional<int64_t>& threads) {
  Rendezvous alone = given;
  alone.needed = false;
  const WorldPlace place = find_launch(process_environment, alone).place;
  share_machine(place, threads);
  return place;
}

int in_job(const Rendezvous& given, std::optional<int64_t>& threads, const std::function<int(World& world)>& work) {
  constexpr std::chrono::hours patience(24 * 7);  // parts may take long; the death of a process is noticed in seconds
  const WorldPlace place = find_launch(process_environment, given).place;
  const std::shared_ptr<World> world = join_world(place, std::chrono::seconds(300), patience);
  share_machine(place, threads);
  try {
    const int code = work(*world);
    world->barrier();
    return code;
  } catch (const WorldError&) {
    throw;
  } catch (const std::exception& e) {
    world->leave(brief(e));
    throw;
  }
}

void expect_one_process(const std::string& command) {
  const Launch launch = find_launch(process_environment, {.needed = false});
  const bool script = launch.launcher == "Slurm" && !process_environment("SLURM_STEP_ID");  // of sbatch, which runs once
  if (launch.place.size > 1 && !script)
    throw ConfigError(
        fmt::format("brume {0} does not divide its work: each of the {1} processes that {2} started would do all of it and write "
                    "the same files; start brume {0} once, without {2}",
                    command, launch.place.size, launch.launcher));
}

}  // namespace brume::tools
