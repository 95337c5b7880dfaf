# brume_add_plugin(NAME SOURCE...): a shared library, libNAME.so, that `brume --plugin libNAME.so` loads.
function(brume_add_plugin name)
  if(NOT ARGN)
    message(FATAL_ERROR "brume_add_plugin(${name}): names no source file")
  endif()
  add_library(${name} MODULE ${ARGN})
  target_link_libraries(${name} PRIVATE brume::brume)
  target_compile_options(${name} PRIVATE -Wall -Wextra)
  set_target_properties(${name} PROPERTIES PREFIX lib SUFFIX .so CXX_EXTENSIONS OFF
                                           CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
endfunction()
