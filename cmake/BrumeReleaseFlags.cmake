# The default flags of a Release build are -O2; flags the user sets are kept. Include this file before project() and call the
# function after it. A build directory of brume 0.1.0 holds CMake's own default, which that version ignored.
if(NOT DEFINED CMAKE_CXX_FLAGS_RELEASE OR (DEFINED CACHE{brume_SOURCE_DIR} AND NOT DEFINED CACHE{BRUME_SANITIZE}))
  set(BRUME_RELEASE_FLAGS_UNSET ON)
endif()

function(brume_default_release_flags)
  if(PROJECT_IS_TOP_LEVEL AND BRUME_RELEASE_FLAGS_UNSET AND CMAKE_CXX_FLAGS_RELEASE STREQUAL "-O3 -DNDEBUG")
    set(CMAKE_CXX_FLAGS_RELEASE "-O2" CACHE STRING "Compiler flags of a Release build" FORCE)
  endif()
endfunction()

# Sources without loops over numbers are optimized less: it takes three quarters of the time. Flags the user sets hold for all sources.
# GCC 13 and later refuse, at -O1, headers that were precompiled at -O2, unless both have these options of x86.
function(brume_cold_flags)
  if(NOT CMAKE_CXX_FLAGS_RELEASE STREQUAL "-O2")
    return()
  endif()
  include(CheckCXXCompilerFlag)
  check_cxx_compiler_flag(-munroll-only-small-loops BRUME_HAS_UNROLL_ONLY_SMALL_LOOPS)
  set(less -O1)
  if(BRUME_HAS_UNROLL_ONLY_SMALL_LOOPS)
    list(APPEND less -munroll-only-small-loops -mvzeroupper)
  endif()
  file(GLOB cold framework/brume/*.cpp)
  foreach(room config conform diffusion distributed experiments interop nn/blocks train)
    file(GLOB_RECURSE inner framework/brume/${room}/*.cpp)
    list(APPEND cold ${inner})
  endforeach()
  file(GLOB_RECURSE inner plugins/*.cpp tools/*.cpp)
  list(FILTER inner EXCLUDE REGEX "/plugins/(datasets|optimizers)/")  # which compute in loops of their own
  list(APPEND cold ${inner})
  set_property(SOURCE ${cold} APPEND PROPERTY COMPILE_OPTIONS "$<$<CONFIG:Release>:${less}>")
endfunction()
