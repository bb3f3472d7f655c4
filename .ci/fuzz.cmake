# cmake -C .ci/fuzz.cmake -B build-fuzz: the fuzz targets as libFuzzer programs, with clang and all its checks.
set(CMAKE_CXX_COMPILER clang++ CACHE STRING "")
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(CMAKE_CXX_FLAGS "-fsanitize=fuzzer-no-link" CACHE STRING "")
set(SUTRA_FUZZ ON CACHE BOOL "")
set(SUTRA_SANITIZE address CACHE STRING "")
set(SUTRA_WITH_TORCH OFF CACHE BOOL "")
set(SUTRA_BENCH OFF CACHE BOOL "")
