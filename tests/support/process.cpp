#include "support/process.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "support/tempdir.h"

namespace brume::test {
namespace {

/// What the child does: between fork and exec of a process with threads, nothing but system calls.
[[noreturn]] void become(char* const* words, char* const* variables, const char* folder, int out, int err) {
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || (*folder && chdir(folder) != 0)) _exit(126);
  execvpe(words[0], words, variables);
  _exit(127);
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> all;
  all.reserve(texts.size() + 1);
  for (std::string& t : texts) all.push_back(t.data());
  all.push_back(nullptr);
  return all;
}

std::vector<std::string> environment(const std::map<std::string, std::string>& added) {
  std::map<std::string, std::string> all;
  for (char** v = environ; *v; ++v) {
    const char *line = *v, *equals = std::strchr(line, '=');
    if (equals) all.emplace(std::string(line, equals), equals + 1);
  }
  all.erase("BRUME_PLUGIN_PATH");
  for (const auto& [name, value] : added) all[name] = value;
  std::vector<std::string> lines;
  lines.reserve(all.size());
  for (const auto& [name, value] : all) lines.push_back(std::string(name).append("=").append(value));
  return lines;
}

int create(const std::string& file) {
  const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error("cannot write " + file);
  return fd;
}

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Finished run(const std::vector<std::string>& words, const Surroundings& where) {
  const TempFolder written;
  std::vector<std::string> texts = words, lines = environment(where.variables);
  const std::vector<char*> arguments = pointers(texts), variables = pointers(lines);
  const std::string folder = where.folder.string();
  const int out = create(written.file("out")), err = create(written.file("err"));
  const pid_t child = fork();
  if (child == 0) become(arguments.data(), variables.data(), folder.c_str(), out, err);
  close(out);
  close(err);
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) throw std::runtime_error("cannot run " + words.at(0));
  Finished finished;
  finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  finished.out = read_text(written.file("out"));
  finished.err = read_text(written.file("err"));
  if (finished.code == 127 && finished.err.empty()) throw std::runtime_error("cannot run " + words.at(0));
  return finished;
}

Finished run_brume(std::vector<std::string> arguments, const Surroundings& where) {
  arguments.insert(arguments.begin(), BRUME_BINARY_DIR "/brume");
  return run(arguments, where);
}

}  // namespace brume::test
