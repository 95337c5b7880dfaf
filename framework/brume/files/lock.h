#pragma once
// Locks between processes that leave no file behind.
#include <string>

namespace brume {

/// An flock(2) on a file or directory. It ends with this object, or with its process, however that ends.
class Lock final {
 public:
  enum class With {
    nobody,   ///< exclusive
    sharers,  ///< others may hold it that share it too
  };
  Lock() = default;
  /// Tries to lock `path`, without waiting. A symbolic link is not followed.
  explicit Lock(const std::string& path, With with = With::nobody);
  ~Lock() { release(); }
  Lock(Lock&& other) noexcept;
  Lock& operator=(Lock&& other) noexcept;

  bool held() const { return descriptor_ >= 0; }
  /// Returns true if another Lock holds it, of this process or another, and one of the two does not share it. False if the path or its file
  /// system cannot be locked.
  bool taken() const { return taken_; }
  void release();

 private:
  int descriptor_ = -1;
  bool taken_ = false;
};

}  // namespace brume
