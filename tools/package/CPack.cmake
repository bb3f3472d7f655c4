# Packages: `cpack -G TGZ` or `cpack -G DEB` in a build folder makes one per component; `cmake --install BUILD --component
# NAME --prefix DIR` installs one.
#   client  headers, shared and static library, CMake package, pkg-config file
#   engine  sutra-engine, and the torch plug-in where it was built (libtorch itself is not in it)
#   tools   sutra-stat, sutra-embed, sutra-cache, sutra-casestudy
set(CPACK_COMPONENTS_ALL client engine tools)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)

set(CPACK_SYSTEM_NAME linux-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_PACKAGE_VENDOR Sutra)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENT_CLIENT_DESCRIPTION "Sutra's client library: text embeddings from a local engine through shared memory.")
set(CPACK_COMPONENT_ENGINE_DESCRIPTION "Sutra's engine: computes and caches text embeddings for clients on this host.")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "Sutra's tools: watch an engine, embed files, run the case study.")

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "Sutra maintainers <maintainers@localhost>" CACHE STRING "Maintainer of the .deb files")
set(CPACK_DEBIAN_PACKAGE_SECTION misc)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# The plug-in needs libtorch, which is no Debian package: its user names the folder in SUTRA_LIBTORCH_DIR.
if(TARGET sutra_torch)
  get_target_property(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS sutra_torch BUILD_RPATH)
endif()
include(CPack)
