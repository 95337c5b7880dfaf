#pragma once

namespace brume::test {

/// True in a build with AddressSanitizer or ThreadSanitizer, which map terabytes and keep freed memory for a while.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

}  // namespace brume::test
