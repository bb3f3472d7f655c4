# cmake -C .ci/release.cmake -S . -B build: what users get, and what the benchmarks measure.
# FORCE: a folder that was configured otherwise becomes this build again; what -D says after -C wins.
set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
set(SUTRA_SANITIZE "" CACHE STRING "" FORCE)
set(SUTRA_CHECKPOINTS OFF CACHE BOOL "" FORCE)
set(SUTRA_TEST_PREFIX release/ CACHE STRING "" FORCE)
