// A table of 256 bytes in sixteen registers, for kernels at level neon.
#pragma once
#if defined(__aarch64__)
#include <cstddef>
#include <cstdint>

#include <arm_neon.h>

namespace pass_loader::cpu {

// Looks each of `count` bytes up, and those after them up to a whole register. A look-up reaches 64 entries, gives 0
// for an index beyond them (vqtbl4q) or leaves what is there (vqtbx4q).
inline void look_up_in_registers(uint8_t* pixels, size_t count, const uint8_t* table) {
  const uint8x16x4_t parts[4] = {vld1q_u8_x4(table), vld1q_u8_x4(table + 64), vld1q_u8_x4(table + 128),
                                 vld1q_u8_x4(table + 192)};
  const uint8x16_t next = vdupq_n_u8(64);
  for (size_t i = 0; i < count; i += 16) {
    uint8x16_t x = vld1q_u8(pixels + i);
    uint8x16_t found = vqtbl4q_u8(parts[0], x);
    for (int k = 1; k < 4; ++k) {
      x = vsubq_u8(x, next);
      found = vqtbx4q_u8(found, parts[k], x);
    }
    vst1q_u8(pixels + i, found);
  }
}

}  // namespace pass_loader::cpu
#endif
