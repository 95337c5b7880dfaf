#pragma once
// FILE:SOMETHING, as options and configurations name a file with what it is used for.
#include <string>
#include <utility>

namespace brume {

/// Returns FILE, and what follows the last ':' that is not within its folder's name; empty without a ':'. Throws ConfigError, naming `what`
/// the file is, if there is no such file.
std::pair<std::string, std::string> file_and_rest(const std::string& asked, const char* what);
/// Returns the same if that is a number; 1 without a ':'.
std::pair<std::string, double> file_and_number(const std::string& asked, const char* what);

}  // namespace brume
