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
