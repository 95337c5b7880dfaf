#pragma once
// Locks between processes that leave no file behind.
#include <string>

namespace brume {

/// An exclusive flock(2) on a file or directory. It ends with this object, or with its process, however that ends.
class Lock final {
 public:
  Lock() = default;
  /// Tries to lock `path`, without waiting. A symbolic link is not followed.
  explicit Lock(const std::string& path);
  ~Lock() { release(); }
  Lock(Lock&& other) noexcept;
  Lock& operator=(Lock&& other) noexcept;

  bool held() const { return descriptor_ >= 0; }
  /// True if another Lock holds it, of this process or another. False if the path or its file system cannot be locked.
  bool taken() const { return taken_; }
  void release();

 private:
  int descriptor_ = -1;
  bool taken_ = false;
};

}  // namespace brume
