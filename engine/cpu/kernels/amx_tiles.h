// The AMX tile instructions, as assembly with a memory clobber: the compiler's own intrinsics lack it, and a tile load
// could be moved ahead of a store that it must see.
// Include from the kernel files only, see avx512_body.h.
#pragma once

#include <cstddef>

namespace {

struct HardwareTiles {
  template <int kTile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  static void Load(const void* base, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(base), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* base, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(base), "r"(stride), "i"(kTile) : "memory");
  }
};

struct HardwareBf16Tiles : HardwareTiles {
  template <int kSum, int kLeft, int kRight>
  static void Product() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight));
  }
};

struct HardwareInt8Tiles : HardwareTiles {
  template <int kSum, int kLeft, int kRight>
  static void Product() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kLeft), "i"(kRight));
  }
};

}  // namespace
