#pragma once
// Where a command writes: what can be seen to be wrong with it is told before anything is computed.
#include <string>
#include <vector>

namespace brume::tools {

/// Throws ConfigError where no file can be written at `path`, as far as can be told without writing: a directory bears its name, or its
/// folder is none, cannot be made or not be written to. Nothing is checked of "", which is no output.
void check_file(const std::string& option, const std::string& path);
/// The same of a directory that files are written into.
void check_folder(const std::string& option, const std::string& path);

/// Whether `path` is to be one file, which its ending says: one of `endings`, as {".png"}. What has no ending is a directory; throws
/// ConfigError where it ends as files do that brume does not write there, and where `path` cannot be written.
bool is_file(const std::string& option, const std::string& path, const std::vector<std::string>& endings);

/// Makes the folder that a file is to be in.
void make_parent(const std::string& path);

}  // namespace brume::tools
