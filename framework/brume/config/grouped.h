#pragma once
// Lists of many mistakes of one kind.
#include <string>
#include <vector>

namespace brume {

/// Returns the first of those texts that differ in their digits alone, in order, each with their number: "... (3 like this)".
std::vector<std::string> grouped(const std::vector<std::string>& texts);

}  // namespace brume
