#pragma once
// Files that need not wait for the disk.

namespace brume {

/// While one lives, the thread writes whole files (atomic_file.h) without waiting until the disk has them: a kill cannot damage them, a
/// power cut can.
class Unsynced final {
 public:
  Unsynced();
  ~Unsynced();
  Unsynced(const Unsynced&) = delete;
  Unsynced& operator=(const Unsynced&) = delete;

 private:
  bool outer_;
};

}  // namespace brume
