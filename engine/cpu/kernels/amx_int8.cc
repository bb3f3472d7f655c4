// The int8 kernels for CPUs with AMX: products on tiles, quantising as in the AVX-512 VNNI sets, everything else as in
// the AMX bf16 set. AMX without AVX-512 VNNI does not exist, and no other instruction of it is used here.
#include "engine/cpu/kernels/int8_kernels.h"

#if defined(__AVX512BF16__)
#include "engine/cpu/kernels/amx_int8_body.h"
#include "engine/cpu/kernels/amx_tiles.h"

namespace sutra::cpu {

const KernelTable* AmxInt8Kernels() {
  static const KernelTable table = [] {
    KernelTable with_int8 = *AmxKernels();
    with_int8.name = "amx_int8";
    with_int8.int8 = &kAmxInt8Kernels<Bf16Ops, HardwareInt8Tiles>;
    return with_int8;
  }();
  return &table;
}

}  // namespace sutra::cpu
#else
namespace sutra::cpu {
const KernelTable* AmxInt8Kernels() { return nullptr; }
}  // namespace sutra::cpu
#endif
