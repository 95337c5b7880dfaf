#pragma once
// The processes of a job whose work is divided by numbers, such as those of images: they need not talk to each other.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/distributed/launcher.h"
#include "program/program.h"

namespace brume::tools {

/// --rendezvous, --rank and --world.
void add_rendezvous(Command command, Rendezvous& given);

/// Returns which process of the job this one is. In a job of several: all but rank 0 show no progress, and `threads` becomes this
/// process's part of the machine unless it is given. Throws ConfigError as find_launch() does.
WorldPlace place_in_job(const Rendezvous& given, std::optional<int64_t>& threads);

/// Throws ConfigError if this process is one of several of a job: each would do all the work of `command` and write the same files.
void expect_one_process(const std::string& command);

/// Returns the numbers below `count` that rank `place.rank` works on, ascending: equal parts, one after the other.
std::vector<int64_t> numbers_of(const WorldPlace& place, int64_t count);

}  // namespace brume::tools
