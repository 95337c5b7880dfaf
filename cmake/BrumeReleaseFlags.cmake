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
function(brume_cold_flags)
  if(NOT CMAKE_CXX_FLAGS_RELEASE STREQUAL "-O2")
    return()
  endif()
  foreach(room config conform experiments interop)
    file(GLOB_RECURSE cold framework/brume/${room}/*.cpp)
    set_property(SOURCE ${cold} APPEND PROPERTY COMPILE_OPTIONS $<$<CONFIG:Release>:-O1>)
  endforeach()
  file(GLOB_RECURSE cold tools/*.cpp)
  set_property(SOURCE ${cold} APPEND PROPERTY COMPILE_OPTIONS $<$<CONFIG:Release>:-O1>)
endfunction()
