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

# `cpack --config build/CPackConfig.cmake` (tools/scripts/package.sh) makes a .deb and a .tar.gz.
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" "${PROJECT_SOURCE_DIR}/README.md" DESTINATION ${CMAKE_INSTALL_DOCDIR})
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_NAME brume)
set(CPACK_PACKAGE_VENDOR "The brume authors")
set(CPACK_PACKAGE_CONTACT "The brume authors <brume@localhost>")
set(CPACK_RESOURCE_FILE_LICENSE "${PROJECT_SOURCE_DIR}/LICENSE")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_SYSTEM_NAME "${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)  # Depends: what dpkg-shlibdeps finds
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${CMAKE_CURRENT_BINARY_DIR}")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "libopenblas0-openmp")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "cmake, libtorch-dev, libfmt-dev")  # for find_package(brume)
set(CPACK_PROJECT_CONFIG_FILE "${CMAKE_CURRENT_LIST_DIR}/BrumePackages.cmake")
include(CPack)
