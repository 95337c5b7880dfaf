# What `cmake --install` installs: the library with its headers, the program, the configurations, and what find_package(brume) reads.
include(CMakePackageConfigHelpers)
install(TARGETS brume EXPORT brumeTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET brume_sentencepiece)
  install(TARGETS brume_sentencepiece LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(TARGETS brume_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY "${PROJECT_SOURCE_DIR}/framework/brume" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/configs" DESTINATION ${CMAKE_INSTALL_DATADIR}/brume)
install(EXPORT brumeTargets NAMESPACE brume:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/brume)
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/brumeConfig.cmake.in" "${CMAKE_CURRENT_BINARY_DIR}/brumeConfig.cmake"
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/brume PATH_VARS CMAKE_INSTALL_BINDIR)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/brumeConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/brumeConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/brumeConfigVersion.cmake"
              "${CMAKE_CURRENT_LIST_DIR}/BrumeAddPlugin.cmake" DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/brume)
