# Finds libtorch in the unpacked PyPI wheels, without torch's own CMake package (which asks for a CUDA toolkit).
#   SUTRA_LIBTORCH_DIR  (variable or environment) folder with torch/include, torch/lib and nvidia/cu13/lib; default
#                       $SUTRA_DEPS_DIR/libtorch, and SUTRA_DEPS_DIR defaults to ~/.cache/sutra (tools/setup/fetch_deps fills it)
# Defines the target sutra_torch_wheel: headers, libtorch_cpu, libc10; and SUTRA_TORCH_LIBRARY_DIRS, the folders of these
# libraries and of those they need.
set(SUTRA_TORCH_VERSION 2.11.0)

if(NOT SUTRA_LIBTORCH_DIR AND DEFINED ENV{SUTRA_LIBTORCH_DIR})
  set(SUTRA_LIBTORCH_DIR $ENV{SUTRA_LIBTORCH_DIR})
endif()
if(NOT SUTRA_LIBTORCH_DIR)
  if(SUTRA_DEPS_DIR)
    set(SUTRA_LIBTORCH_DIR ${SUTRA_DEPS_DIR}/libtorch)
  elseif(DEFINED ENV{SUTRA_DEPS_DIR})
    set(SUTRA_LIBTORCH_DIR $ENV{SUTRA_DEPS_DIR}/libtorch)
  else()
    set(SUTRA_LIBTORCH_DIR $ENV{HOME}/.cache/sutra/libtorch)
  endif()
endif()

set(torch_fix "run tools/setup/fetch_deps --torch, name the folder with -DSUTRA_LIBTORCH_DIR=..., or build without libtorch: -DSUTRA_WITH_TORCH=OFF")
foreach(needed torch/version.py torch/include/ATen/core/Tensor.h torch/lib/libtorch_cpu.so torch/lib/libc10.so
        nvidia/cu13/lib/libcudart.so.13 nvidia/cu13/lib/libcupti.so.13)
  if(NOT EXISTS ${SUTRA_LIBTORCH_DIR}/${needed})
    message(FATAL_ERROR "libtorch: ${SUTRA_LIBTORCH_DIR}/${needed} is missing; ${torch_fix}")
  endif()
endforeach()

# The CPU kernels do not depend on torch's internals, but vectors are compared with this version's, so it is pinned.
file(STRINGS ${SUTRA_LIBTORCH_DIR}/torch/version.py torch_version_line REGEX "^__version__")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" torch_version "${torch_version_line}")
if(NOT torch_version VERSION_EQUAL SUTRA_TORCH_VERSION)
  message(FATAL_ERROR "libtorch: ${SUTRA_LIBTORCH_DIR} contains torch ${torch_version}, but ${SUTRA_TORCH_VERSION} is required; ${torch_fix}")
endif()

add_library(sutra_torch_wheel INTERFACE)
target_include_directories(sutra_torch_wheel SYSTEM INTERFACE ${SUTRA_LIBTORCH_DIR}/torch/include)
target_link_libraries(sutra_torch_wheel INTERFACE
  ${SUTRA_LIBTORCH_DIR}/torch/lib/libtorch_cpu.so ${SUTRA_LIBTORCH_DIR}/torch/lib/libc10.so)
# libtorch_cpu needs libcudart and libcupti to load, although it never calls them without a GPU.
set(SUTRA_TORCH_LIBRARY_DIRS ${SUTRA_LIBTORCH_DIR}/torch/lib ${SUTRA_LIBTORCH_DIR}/nvidia/cu13/lib)
list(TRANSFORM SUTRA_TORCH_LIBRARY_DIRS PREPEND -Wl,-rpath-link, OUTPUT_VARIABLE torch_link_options)
target_link_options(sutra_torch_wheel INTERFACE ${torch_link_options})
message(STATUS "libtorch ${torch_version} in ${SUTRA_LIBTORCH_DIR}")
