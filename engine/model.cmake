# The model side of the engine, included by engine/CMakeLists.txt.
#   sutra_model        files, configuration, identity, CPU kernels, fake backend: no torch
#   sutra_model_torch  MakeTorchBackend (only with SUTRA_WITH_TORCH)
set(model_sources
  activation_curve.cc backend_fake.cc bert_weights.cc cpu_encoder.cc cpu_features.cc cpu_kernels_amx.cc
  cpu_kernels_avx512.cc cpu_kernels_avx512_bf16.cc encoder_backend.cc kernel_choice.cc model_config.cc
  model_identity.cc packed_model.cc safetensors.cc work_team.cc)
list(TRANSFORM model_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
add_library(sutra_model STATIC ${model_sources})
target_link_libraries(sutra_model
  PUBLIC sutra_options sutra_tokenizer Threads::Threads
  PRIVATE PkgConfig::CRYPTO nlohmann_json::nlohmann_json spdlog::spdlog)

# Each kernel file gets its instruction set and nothing else does. g++ 12 warns of its own intrinsics' "undefined" values.
# Cached, because tests compile the same bodies over emulated tiles.
set(SUTRA_AVX512_FLAGS -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -Wno-uninitialized -Wno-maybe-uninitialized
  CACHE INTERNAL "")
set(SUTRA_AVX512_BF16_FLAGS ${SUTRA_AVX512_FLAGS} -mavx512bf16 CACHE INTERNAL "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cpu_kernels_avx512.cc
    PROPERTIES COMPILE_OPTIONS "${SUTRA_AVX512_FLAGS}")
  set_source_files_properties(
    ${CMAKE_CURRENT_LIST_DIR}/cpu_kernels_avx512_bf16.cc ${CMAKE_CURRENT_LIST_DIR}/cpu_kernels_amx.cc
    PROPERTIES COMPILE_OPTIONS "${SUTRA_AVX512_BF16_FLAGS}")
endif()

if(SUTRA_WITH_TORCH)
  include(${CMAKE_CURRENT_LIST_DIR}/FindTorchWheel.cmake)
  add_library(sutra_model_torch STATIC ${CMAKE_CURRENT_LIST_DIR}/backend_torch.cc)
  # spdlog must stay out of this one: torch's include folder brings another fmt.
  target_link_libraries(sutra_model_torch PUBLIC sutra_model PRIVATE sutra_torch_wheel)
endif()
