#include "program/processes.h"

#include <fmt/format.h>

#include <numeric>

#include "brume/config/errors.h"
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

WorldPlace place_in_job(const Rendezvous& given, std::optional<int64_t>& threads) {
  Rendezvous alone = given;
  alone.needed = false;
  const WorldPlace place = find_launch(process_environment, alone).place;
  if (place.size == 1) return place;
  if (place.rank > 0) Progress::hide();
  if (!threads && place.local_size > 1) threads = threads_per_process(place.local_size);
  return place;
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

std::vector<int64_t> numbers_of(const WorldPlace& place, int64_t count) {
  const int64_t begin = count * place.rank / place.size, end = count * (place.rank + 1) / place.size;
  std::vector<int64_t> numbers(size_t(end - begin));
  std::iota(numbers.begin(), numbers.end(), begin);
  return numbers;
}

}  // namespace brume::tools
