#pragma once
// The pages of mapped files that are resident.
#include <cstddef>

namespace brume {

/// Discards the pages of a mapped file that lie wholly within, unless they were written to: they are read again when touched, mostly from
/// the system's cache. Other memory stays as it is.
void discard_file_pages(const void* data, size_t bytes);

}  // namespace brume
