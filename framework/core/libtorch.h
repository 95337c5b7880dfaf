#pragma once
// What differs between the versions of LibTorch that brume is built with, 1.13 and 2.
#include <torch/version.h>

#if TORCH_VERSION_MAJOR >= 2
/// How c10::Allocator::allocate is qualified.
#define BRUME_ALLOCATE_CONST
/// A member that a c10::Allocator must have.
#define BRUME_ALLOCATOR_COPIES \
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
#else
#define BRUME_ALLOCATE_CONST const
#define BRUME_ALLOCATOR_COPIES
#endif
