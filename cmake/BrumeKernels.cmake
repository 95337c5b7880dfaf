# Kernels are compiled for their own instruction set, each in a file of its own; the library itself runs on any processor.
function(brume_kernel_flags sources)
  set(common "-O3;-fno-math-errno;-fno-trapping-math")  # square roots and comparisons may become vectors
  foreach(source IN LISTS ${sources})
    if(source MATCHES "_(avx2|avx512|avx512bf16|avx512vnni|generic)\\.cpp$|numerics/adam\\.cpp$")
      set_source_files_properties("${source}" PROPERTIES SKIP_PRECOMPILE_HEADERS ON)  # made with other flags
    endif()
    if(source MATCHES "_avx2\\.cpp$")
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${common};-mavx2;-mfma;-mf16c")
    elseif(source MATCHES "_avx512\\.cpp$")
      set_source_files_properties("${source}" PROPERTIES
        COMPILE_OPTIONS "${common};-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mprefer-vector-width=512")
    elseif(source MATCHES "_avx512bf16\\.cpp$")
      # GCC 12 warns of its own headers.
      set_source_files_properties("${source}" PROPERTIES
        COMPILE_OPTIONS "${common};-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512bf16;-mfma;-Wno-maybe-uninitialized;-mprefer-vector-width=512")
    elseif(source MATCHES "_avx512vnni\\.cpp$")
      set_source_files_properties("${source}" PROPERTIES
        COMPILE_OPTIONS "${common};-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mprefer-vector-width=512")
    elseif(source MATCHES "_generic\\.cpp$|numerics/adam\\.cpp$")
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${common}")
    endif()
    if(source MATCHES "kernels/int8_")  # the same bits on every instruction set
      set_property(SOURCE "${source}" APPEND PROPERTY COMPILE_OPTIONS "-ffp-contract=off")
    endif()
  endforeach()
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    list(FILTER ${sources} EXCLUDE REGEX "_avx(2|512|512bf16|512vnni)\\.cpp$")
    set(${sources} "${${sources}}" PARENT_SCOPE)
  endif()
endfunction()
