#include "crc32c.h"

#include <array>
#include <cstring>

#include "isa.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#endif

namespace pass_loader {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected

// table[k][b] is the CRC of byte b followed by k zero bytes.
constexpr std::array<std::array<uint32_t, 256>, 8> make_tables() {
  std::array<std::array<uint32_t, 256>, 8> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
    table[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k)
    for (uint32_t byte = 0; byte < 256; ++byte)
      table[k][byte] = table[k - 1][byte] >> 8 ^ table[0][table[k - 1][byte] & 0xFF];
  return table;
}
constexpr auto kTables = make_tables();

uint32_t crc_portable(uint32_t crc, const uint8_t* bytes, size_t count) {
  for (; count >= 8; count -= 8, bytes += 8) {
    uint32_t next = 0;
    for (int k = 0; k < 4; ++k) next ^= kTables[7 - k][(crc >> 8 * k & 0xFF) ^ bytes[k]];
    for (int k = 4; k < 8; ++k) next ^= kTables[7 - k][bytes[k]];
    crc = next;
  }
  for (; count > 0; --count, ++bytes) crc = crc >> 8 ^ kTables[0][(crc ^ *bytes) & 0xFF];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc_sse42(uint32_t crc, const uint8_t* bytes, size_t count) {
  uint64_t wide = crc;
  for (; count >= 8; count -= 8, bytes += 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = static_cast<uint32_t>(wide);
  for (; count > 0; --count, ++bytes) crc = _mm_crc32_u8(crc, *bytes);
  return crc;
}
#elif defined(__aarch64__)
__attribute__((target("+crc"))) uint32_t crc_arm(uint32_t crc, const uint8_t* bytes, size_t count) {
  for (; count >= 8; count -= 8, bytes += 8) {
    uint64_t word;
    std::memcpy(&word, bytes, 8);
    crc = __crc32cd(crc, word);
  }
  for (; count > 0; --count, ++bytes) crc = __crc32cb(crc, *bytes);
  return crc;
}
#endif

}  // namespace

uint32_t crc32c(std::span<const uint8_t> bytes, uint32_t before) {
#if defined(__x86_64__)
  if (current_isa() != Isa::base) return ~crc_sse42(~before, bytes.data(), bytes.size());
#elif defined(__aarch64__)
  if (current_isa() != Isa::base && has_crc32()) return ~crc_arm(~before, bytes.data(), bytes.size());
#endif
  return ~crc_portable(~before, bytes.data(), bytes.size());
}

}  // namespace pass_loader
