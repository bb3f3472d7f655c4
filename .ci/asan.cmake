# cmake -C .ci/asan.cmake -S . -B build-asan: AddressSanitizer and UndefinedBehaviorSanitizer, with checkpoints.
set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
set(SUTRA_SANITIZE address CACHE STRING "" FORCE)
set(SUTRA_CHECKPOINTS ON CACHE BOOL "" FORCE)
set(SUTRA_TEST_PREFIX asan/ CACHE STRING "" FORCE)
