#pragma once
// The processes of a job whose work is divided by numbers, such as those of images (part_of()).
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "brume/distributed/launcher.h"
#include "program/program.h"

namespace brume::tools {

/// Adds --rendezvous, --rank and --world.
void add_rendezvous(Command command, Rendezvous& given);

/// Returns which process of the job this one is; the processes need not talk to each other. In a job of several: all but rank 0 show no
/// progress, and `threads` becomes this process's part of the machine unless it is given. Throws ConfigError as find_launch() does.
WorldPlace place_in_job(const Rendezvous& given, std::optional<int64_t>& threads);

/// Joins the processes of the job, which gather their results, and runs `work` in each; returns its result. Changes `threads` and shows
/// progress as place_in_job() does. The others learn of a process that fails, and end with its reason.
int in_job(const Rendezvous& given, std::optional<int64_t>& threads, const std::function<int(World& world)>& work);

/// Throws ConfigError if this process is one of several of a job: each would do all the work of `command` and write the same files.
void expect_one_process(const std::string& command);

}  // namespace brume::tools
