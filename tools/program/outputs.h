#pragma once
// The files that a command writes. Faults that can be seen beforehand are reported before anything is computed.
#include <string>
#include <vector>

namespace brume::tools {

/// Throws ConfigError if no file can be written at `path`, as far as can be known without writing: a directory bears its name, or its
/// folder is none, cannot be made or not be written to. Nothing is checked of "", which is no output.
void check_file(const std::string& option, const std::string& path);
/// Throws the same for a directory that files are written into.
void check_folder(const std::string& option, const std::string& path);

/// Returns true if `path` is to be one file, which its ending says: one of `endings`, as {".png"}. What has no ending is a directory;
/// throws ConfigError if it has the ending of a file that brume does not write there, and if `path` cannot be written.
bool is_file(const std::string& option, const std::string& path, const std::vector<std::string>& endings);

/// Makes the folder that a file is to be in.
void make_parent(const std::string& path);

}  // namespace brume::tools
