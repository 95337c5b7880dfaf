#include "brume/files/atomic_file.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "support/file_builders.h"

namespace brume {
namespace {

using namespace test::files;

TEST(AtomicFile, ReplacesTheFileOnCommitAlone) {
  const TemporaryFolder folder;
  const auto path = folder.file("model", "before");
  AtomicFile file(path, 5);
  file.write("af");
  file.write("ter");
  EXPECT_EQ(content_of(path), "before");
  EXPECT_EQ(file.written(), 5u);
  file.commit();
  EXPECT_EQ(content_of(path), "after");
  EXPECT_EQ(folder.count(), 1u);
}

TEST(AtomicFile, WithoutCommitLeavesNoTrace) {
  const TemporaryFolder folder;
  { AtomicFile(folder.file("model")).write("half"); }
  EXPECT_EQ(folder.count(), 0u);
}

/// Begins to write a file in a process that is killed.
void killed_while_writing(const std::string& path) {
  const auto child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write("half");
    ::kill(::getpid(), SIGKILL);
  }
  ::waitpid(child, nullptr, 0);
}

TEST(AtomicFile, TheFilesOfKilledProcessesAreRemovedAndThoseOfLivingOnesStay) {
  const TemporaryFolder folder;
  killed_while_writing(folder.file("model"));
  const auto mine = folder.file(".model.tmp", "mine");
  EXPECT_EQ(folder.count(), 2u);
  AtomicFile living(folder.file("other"));
  EXPECT_EQ(folder.count(), 2u);  // the first file that is written here removes it
  killed_while_writing(folder.file("model"));
  EXPECT_EQ(folder.count(), 3u);
  remove_stale_files(folder.path());
  EXPECT_EQ(folder.count(), 2u);
  living.write("whole");
  living.commit();
  EXPECT_EQ(content_of(folder.file("other")), "whole");
  EXPECT_EQ(content_of(mine), "mine");
  EXPECT_EQ(folder.count(), 2u);
}

TEST(AtomicFile, CannotBeUsedAfterCommit) {
  const TemporaryFolder folder;
  AtomicFile file(folder.file("model"));
  file.commit();
  EXPECT_THROW(file.write("more"), std::logic_error);
  EXPECT_THROW(file.commit(), std::logic_error);
}

TEST(AtomicFile, KeepsThePermissionsOfWhatItReplaces) {
  const TemporaryFolder folder;
  const auto path = folder.file("model", "before");
  ::chmod(path.c_str(), 0606);
  write_file(path, "after");
  struct stat status {};
  ::stat(path.c_str(), &status);
  EXPECT_EQ(status.st_mode & 0777, 0606u);
}

TEST(AtomicFile, WritesWhereASymbolicLinkLeads) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder.file("real"));
  std::filesystem::create_symlink("real/model", folder.file("link"));
  write_file(folder.file("link"), "content");
  EXPECT_TRUE(std::filesystem::is_symlink(folder.file("link")));
  EXPECT_EQ(content_of(folder.file("real/model")), "content");
}

TEST(AtomicFile, AcceptsTheLongestName) {
  const TemporaryFolder folder;
  const auto path = folder.file(std::string(255, 'n'));
  write_file(path, "content");
  EXPECT_EQ(content_of(path), "content");
}

TEST(AtomicFile, NamesWhatIsInTheWay) {
  const TemporaryFolder folder;
  const auto error = [&folder](const std::string& name) { return error_of([&] { write_file(folder.file(name), "x"); }, folder); };
  std::filesystem::create_directory(folder.file("folder"));
  ::mkfifo(folder.file("pipe").c_str(), 0600);
  std::filesystem::create_symlink("loop", folder.file("loop"));
  EXPECT_EQ(error("absent/model"), "absent/model: cannot be written: there is no directory 'absent'");
  EXPECT_EQ(error("folder"), "folder: cannot be written: it is a directory");
  EXPECT_EQ(error("folder/"), "folder/: cannot be written: a file name is missing");
  EXPECT_EQ(error("pipe"), "pipe: cannot be written: it is not a regular file");
  EXPECT_EQ(error("loop"), "loop: cannot be written: more than 40 symbolic links in a row");
}

TEST(AtomicFile, RespectsReadOnlyFiles) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everything";
  const TemporaryFolder folder;
  const auto path = folder.file("model", "before");
  ::chmod(path.c_str(), 0444);
  EXPECT_EQ(error_of([&] { write_file(path, "after"); }, folder),
            "model: opening it for writing failed: Permission denied; the previous file is unchanged");
}

TEST(AtomicFile, StopsAtTheLimitOnFileSizes) {
  const TemporaryFolder folder;
  const auto path = folder.file("model", "before");
  const FileSizeLimit limit(4096);
  EXPECT_EQ(error_of([&] { write_file(path, std::string(5000, 'x')); }, folder),
            "model: the file is too large: writing it needs 5000 bytes and the limit on file sizes (ulimit -f) is 4096 bytes; the "
            "previous file is unchanged");
  const auto unknown_size = [&] {
    AtomicFile file(folder.file("other"));
    for (int i = 0; i < 100; ++i) file.write(std::string(1000, 'x'));
  };
  EXPECT_EQ(error_of(unknown_size, folder),
            "other: the file is too large: writing it stopped after 4000 bytes and the limit on file sizes (ulimit -f) is 4096 bytes; "
            "nothing was written");
  EXPECT_EQ(content_of(path), "before");
  EXPECT_EQ(folder.count(), 1u);
}

/// Whether this process may mount from now on, seen by nobody else. Without root it becomes the master of a user namespace in
/// which it keeps its own numbers.
bool may_mount() {
  if (::geteuid() == 0) return ::unshare(CLONE_NEWNS) == 0;
  const auto itself = [](unsigned id) { return std::to_string(id) + " " + std::to_string(id) + " 1"; };
  const auto user = itself(::geteuid()), group = itself(::getegid());
  const auto say = [](const char* file, const std::string& text) { return static_cast<bool>(std::ofstream(file) << text << std::flush); };
  return ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && say("/proc/self/uid_map", user) && say("/proc/self/setgroups", "deny") &&
         say("/proc/self/gid_map", group);
}

/// Runs `action` in a child process with a disk of `bytes` mounted on `folder`, which no other process sees. Returns what it
/// returned, or "" if this machine does not allow that.
std::string on_small_disk(const TemporaryFolder& folder, int bytes, const std::function<std::string()>& action) {
  int ends[2];
  if (::pipe(ends) != 0) return "";
  const auto child = ::fork();
  if (child == 0) {
    std::string text;
    if (may_mount() && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        ::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0) {
      text = action();
    }
    [[maybe_unused]] const auto count = ::write(ends[1], text.data(), text.size());
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text(4096, '\0');
  const auto count = ::read(ends[0], text.data(), text.size());
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return text;
}

TEST(AtomicFile, SaysThatThereIsNoRoom) {
  const TemporaryFolder folder;
  const auto known = on_small_disk(folder, 65536, [&folder] {
    const auto path = folder.file("model", "before");
    auto text = error_of([&] { write_file(path, std::string(100000, 'x')); }, folder);
    return text + " | " + content_of(path) + " | " + std::to_string(folder.count());
  });
  if (known.empty()) GTEST_SKIP() << "no small disk can be mounted here";
  EXPECT_EQ(known, "model: no room on the disk: writing it needs 100000 bytes and '" + folder.path() +
                       "' has 61440 bytes free; the previous file is unchanged | before | 1");
  const auto unknown = on_small_disk(folder, 65536, [&folder] {
    return error_of(
        [&] {
          AtomicFile file(folder.file("model"));
          for (int i = 0; i < 100; ++i) file.write(std::string(8192, 'x'));
        },
        folder);
  });
  EXPECT_EQ(unknown, "model: no room on the disk: writing it stopped after 65536 bytes and '" + folder.path() +
                         "' has 65536 bytes free; nothing was written");
}

}  // namespace
}  // namespace brume
