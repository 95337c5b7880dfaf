#include "brume/files/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "brume/config/file_hint.h"
#include "brume/files/refuse.h"

namespace brume {
namespace {

/// A file descriptor that closes itself: the mapping outlives it.
class Descriptor final {
 public:
  explicit Descriptor(const std::string& path) : number_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file(path);  // non-blocking, so that a named pipe is refused below instead of waited for
  if (file.number() < 0) {
    const std::string reason = std::strerror(errno);  // before a look at the folder
    refuse(path, fmt::format("cannot be opened: {}{}", reason, file_hint(path)));
  }
  struct stat status {};
  if (::fstat(file.number(), &status) != 0) refuse(path, fmt::format("cannot be examined: {}", std::strerror(errno)));
  if (S_ISDIR(status.st_mode)) refuse(path, "is a directory, not a file");
  if (!S_ISREG(status.st_mode)) refuse(path, "is not a regular file");
  const auto size = static_cast<size_t>(status.st_size);
  void* memory = nullptr;
  if (size > 0) {  // mapping nothing is an error of mmap
    // PROT_WRITE on a private mapping needs no write permission: it lets in-place operations on loaded tensors work.
    memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.number(), 0);
    if (memory == MAP_FAILED) refuse(path, fmt::format("cannot be mapped ({} bytes): {}", size, std::strerror(errno)));
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, static_cast<uint8_t*>(memory), size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace brume
