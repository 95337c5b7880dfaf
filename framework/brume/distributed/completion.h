#pragma once
// Waiting for an operation of c10d by slices of time.
#include <chrono>
#include <exception>

namespace brume {

/// Waits for an operation, at most for `slice`. Returns true if it is complete, false if it is not. Throws the error that it failed with.
/// `Work` is c10d::Work, whose wait() throws the same kind of error for a failure as for the end of the slice.
template <class Work>
bool completes_within(Work& work, std::chrono::milliseconds slice) {
  try {
    work.wait(slice);
    return true;
  } catch (const std::exception&) {
    if (!work.isCompleted()) return false;
  }
  work.wait(slice);  // it may have completed right after the slice ended: only this one shows whether it failed
  return true;
}

}  // namespace brume
