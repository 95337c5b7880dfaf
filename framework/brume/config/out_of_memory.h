#pragma once
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <string>

namespace brume {

/// Returns the size that the error names, like " for 1024 bytes", if `e` is a failed allocation; nothing for other errors.
std::optional<std::string> out_of_memory(const std::exception& e);

/// Returns the first of the sizes `most`, most / 2, most / 4, ... down to `least` for which `attempt` finds memory, by calling it; 0 if
/// none does. Passes on every other error.
int64_t largest_that_fits(int64_t most, int64_t least, const std::function<void(int64_t)>& attempt);

}  // namespace brume
