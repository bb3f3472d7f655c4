# cmake -C .ci/fuzz.cmake -S . -B build-fuzz: the fuzz targets as libFuzzer programs, with clang and all its checks.
set(CMAKE_CXX_COMPILER clang++ CACHE STRING "")
set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
set(CMAKE_CXX_FLAGS "-fsanitize=fuzzer-no-link" CACHE STRING "" FORCE)
set(SUTRA_FUZZ ON CACHE BOOL "" FORCE)
set(SUTRA_SANITIZE address CACHE STRING "" FORCE)
