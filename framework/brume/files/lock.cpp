#include "brume/files/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace brume {

Lock::Lock(const std::string& path, With with) : descriptor_(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) {
  if (descriptor_ < 0 || ::flock(descriptor_, (with == With::nobody ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return;
  taken_ = errno == EWOULDBLOCK;
  release();
}

Lock::Lock(Lock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), taken_(other.taken_) {}

Lock& Lock::operator=(Lock&& other) noexcept {
  release();
  descriptor_ = std::exchange(other.descriptor_, -1);
  taken_ = other.taken_;
  return *this;
}

void Lock::release() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

}  // namespace brume
