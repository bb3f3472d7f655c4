# cmake -C .ci/tsan.cmake -S . -B build-tsan: ThreadSanitizer, with checkpoints. Build and run it under `setarch -R`: the
# sanitizer of g++ 12 cannot place its shadow memory under the address randomisation of newer kernels.
set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
set(SUTRA_SANITIZE thread CACHE STRING "" FORCE)
set(SUTRA_CHECKPOINTS ON CACHE BOOL "" FORCE)
set(SUTRA_TEST_PREFIX tsan/ CACHE STRING "" FORCE)
