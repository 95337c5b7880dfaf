#pragma once
// Lists of hosts and of tasks per host, as Slurm writes them into its variables (srun(1), scontrol(1) "show hostnames").
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// Returns the hosts of a list such as "n[001-004,7],login" in order: n001, n002, n003, n004, n7, login. A name may have several brackets.
/// Throws ConfigError, calling the list `name`, if it cannot be read.
std::vector<std::string> hosts_in(std::string_view list, const std::string& name);

/// Returns the number of tasks of each host in a list such as "2(x3),1": 2, 2, 2, 1. Throws ConfigError, calling the list `name`, if it
/// cannot be read.
std::vector<int64_t> tasks_per_host(std::string_view list, const std::string& name);

}  // namespace brume
