#pragma once
// Limits that the system sets on a group of processes (cgroups v1 and v2 of Linux).
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

namespace brume {

/// Returns the smallest limit that `limit_of` reads in the directories of this process's groups of a controller ("cpu", "memory") and of
/// all groups above them; nothing if none has one. `root`: the directory that has proc/ and sys/.
std::optional<double> smallest_group_limit(const std::filesystem::path& root, std::string_view controller,
                                           const std::function<std::optional<double>(const std::filesystem::path&)>& limit_of);

}  // namespace brume
