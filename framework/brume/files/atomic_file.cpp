#include "brume/files/atomic_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "brume/files/lock.h"
#include "brume/files/refuse.h"
#include "brume/files/unsynced.h"

namespace brume {
namespace {

thread_local bool unsynced = false;

constexpr int max_links = 40;                  // as Linux follows
constexpr size_t max_write = size_t{1} << 30;  // one write(2) takes at most 2 GiB
constexpr std::string_view temporary_ending = ".brume-tmp";

/// Returns the end of a chain of symbolic links, which need not exist yet.
std::string follow_links(const std::string& path) {
  std::filesystem::path target = path;
  for (int followed = 0; followed < max_links; ++followed) {
    std::error_code ignored;
    if (!std::filesystem::is_symlink(target, ignored)) return target.string();
    const auto next = std::filesystem::read_symlink(target, ignored);
    target = next.is_absolute() ? next : target.parent_path() / next;
  }
  refuse(path, fmt::format("cannot be written: more than {} symbolic links in a row", max_links));
}

std::string directory_of(const std::string& path) {
  const auto directory = std::filesystem::path(path).parent_path().string();
  return directory.empty() ? "." : directory;
}

/// Returns a hidden name in the folder of the target, unique to this process and moment.
std::string temporary_name(const std::string& directory, const std::string& target) {
  static std::atomic<uint64_t> counter{0};
  constexpr size_t room_for_suffix = 60;  // names have at most 255 bytes
  const auto name = std::filesystem::path(target).filename().string().substr(0, 255 - room_for_suffix);
  return fmt::format("{}/.{}.{}-{}{}", directory, name, ::getpid(), counter++, temporary_ending);
}

/// Removes, the first time that this process writes into a directory, what killed processes left there.
void clean_once(const std::string& directory) {
  static std::mutex guard;
  static std::set<std::string> cleaned;
  {
    const std::lock_guard hold(guard);
    if (!cleaned.insert(directory).second) return;
  }
  remove_stale_files(directory);
}

/// Returns true if the file still has a name: another process may have taken it for a killed one's before it was locked.
bool lock_new(int descriptor) {
  struct stat status {};
  return ::flock(descriptor, LOCK_EX) != 0 || ::fstat(descriptor, &status) != 0 || status.st_nlink > 0;
}

bool is_lack_of_room(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

uint64_t file_size_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
  return limit.rlim_cur;
}

}  // namespace

AtomicFile::AtomicFile(std::string path, uint64_t bytes_needed)
    : path_(std::move(path)), target_(follow_links(path_)), directory_(directory_of(target_)), needed_(bytes_needed) {
  if (path_.empty() || path_.back() == '/') refuse(path_, "cannot be written: a file name is missing");
  struct stat previous {};
  if (::stat(target_.c_str(), &previous) == 0) {
    if (S_ISDIR(previous.st_mode)) refuse(path_, "cannot be written: it is a directory");
    if (!S_ISREG(previous.st_mode)) refuse(path_, "cannot be written: it is not a regular file");
    replaces_ = true;
    mode_ = static_cast<int>(previous.st_mode & 0777);
    // Renaming over a read-only file would work, but its owner did not mean that.
    if (::access(target_.c_str(), W_OK) != 0) fail(errno, "opening it for writing");
  }
  open_temporary();
}

void AtomicFile::open_temporary() {
  clean_once(directory_);
  for (;;) {
    temporary_ = temporary_name(directory_, target_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode_);
    if (descriptor_ < 0 && errno != EEXIST && errno != EINTR) break;
    if (descriptor_ < 0) continue;
    if (lock_new(descriptor_)) break;
    ::close(descriptor_);
  }
  if (descriptor_ < 0) {
    const int error = errno;
    temporary_.clear();
    if (error == ENOENT) refuse(path_, fmt::format("cannot be written: there is no directory '{}'", directory_));
    fail(error, "creating a file in its directory");
  }
  if (replaces_) ::fchmod(descriptor_, static_cast<mode_t>(mode_));  // open() applied the umask
  if (needed_ == 0) return;
  refuse_beyond_limit(needed_);
  // Only a reservation: file systems without it (EOPNOTSUPP and others) find out while writing.
  if (::fallocate(descriptor_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(needed_)) != 0 && is_lack_of_room(errno)) {
    fail(errno, "reserving room for it");
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

/// Throws ConfigError beyond the limit of `ulimit -f`, where the kernel does not only fail the write: it kills the process.
void AtomicFile::refuse_beyond_limit(uint64_t size) {
  if (size > file_size_limit()) fail(EFBIG, "writing");
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (descriptor_ < 0) throw std::logic_error("AtomicFile: write after commit or failure: " + path_);
  refuse_beyond_limit(written_ + bytes);
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::write(descriptor_, next, std::min(bytes, max_write));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(errno, "writing");
    next += count;
    bytes -= static_cast<size_t>(count);
    written_ += static_cast<uint64_t>(count);
  }
}

void AtomicFile::commit() {
  if (descriptor_ < 0) throw std::logic_error("AtomicFile: commit after commit or failure: " + path_);
  if (!unsynced && ::fsync(descriptor_) != 0) fail(errno, "syncing");  // delayed allocation and network disks run out of room here
  const int descriptor = ::dup(descriptor_);                           // holds the lock until the file has its name
  if (descriptor < 0) fail(errno, "duplicating its descriptor");
  if (::close(std::exchange(descriptor_, descriptor)) != 0 && errno != EINTR) fail(errno, "closing");
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail(errno, "renaming its temporary file");
  temporary_.clear();
  discard();
  if (!unsynced) sync_directory();
}

/// Writes the directory to the disk: only then does the new name survive a power cut.
void AtomicFile::sync_directory() {
  const int directory = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;  // a directory that may be written but not read: nothing to sync through
  const int error = ::fsync(directory) == 0 ? 0 : errno;
  ::close(directory);
  if (error == 0 || error == EINVAL || error == ENOTSUP) return;  // file systems that cannot
  refuse(path_, fmt::format("was written, but syncing its directory failed: {}", std::strerror(error)));
}

std::string AtomicFile::no_room_message(int error) const {
  const char* cause = error == ENOSPC ? "no room on the disk" : error == EDQUOT ? "the disk quota is used up" : "the file is too large";
  std::string needs = needed_ > 0 ? fmt::format("needs {} bytes", needed_) : fmt::format("stopped after {} bytes", written_);
  struct statvfs disk {};
  if (error == EFBIG && file_size_limit() != UINT64_MAX) {
    needs += fmt::format(" and the limit on file sizes (ulimit -f) is {} bytes", file_size_limit());
  } else if (error == ENOSPC && ::statvfs(directory_.c_str(), &disk) == 0) {
    needs += fmt::format(" and '{}' has {} bytes free", directory_, static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize);
  }
  return fmt::format("{}: writing it {}", cause, needs);
}

void AtomicFile::fail(int error, const char* doing) {
  discard();  // first, so that the room named in the message is the room there is without the attempt
  const auto what = is_lack_of_room(error) ? no_room_message(error) : fmt::format("{} failed: {}", doing, std::strerror(error));
  refuse(path_, fmt::format("{}; {}", what, replaces_ ? "the previous file is unchanged" : "nothing was written"));
}

void remove_stale_files(const std::string& directory) {
  std::error_code error, ignored;
  std::vector<std::filesystem::path> stale;
  for (auto entry = std::filesystem::directory_iterator(directory, error); !error && entry != std::filesystem::directory_iterator();
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with('.') || !name.ends_with(temporary_ending) || !entry->is_regular_file(ignored)) continue;
    stale.push_back(entry->path());
  }
  for (const auto& file : stale)
    if (const Lock lock(file.string()); lock.held()) std::filesystem::remove(file, ignored);  // no process writes it, and none begins to
}

Unsynced::Unsynced() : outer_(std::exchange(unsynced, true)) {}
Unsynced::~Unsynced() { unsynced = outer_; }

void write_file(const std::string& path, std::string_view content) {
  AtomicFile file(path, content.size());
  file.write(content);
  file.commit();
}

}  // namespace brume
