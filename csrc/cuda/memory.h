// Loads, stores and sums that differ between GPU and CPU.
#pragma once
#include <cstdint>
#include <cstring>

#include "host_device.h"

namespace pass_loader::cuda {

// Loads four bytes at a multiple of four.
PL_BOTH uint32_t load_word(const uint8_t* from) {
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const uint32_t*>(from);
#else
  uint32_t word;
  std::memcpy(&word, __builtin_assume_aligned(from, 4), 4);
  return word;
#endif
}
PL_BOTH void store_word(uint8_t* to, uint32_t word) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<uint32_t*>(to) = word;
#else
  std::memcpy(__builtin_assume_aligned(to, 4), &word, 4);
#endif
}

// Stores eight bytes at a multiple of eight.
PL_BOTH void store_two(uint8_t* to, uint32_t low, uint32_t high) {
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<uint2*>(to) = make_uint2(low, high);
#else
  store_word(to, low);
  store_word(to + 4, high);
#endif
}

// How many bits are set; which one is the lowest, of a number that is not 0.
PL_BOTH int32_t count_bits(uint64_t bits) {
#if defined(__CUDA_ARCH__)
  return __popcll(bits);
#else
  return __builtin_popcountll(bits);
#endif
}
PL_BOTH int32_t lowest_bit(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

// Loads from memory that no kernel writes meanwhile, known to be global and so kept in the cache of constant data.
PL_BOTH uint8_t load_constant(const uint8_t* from) {
#if defined(__CUDA_ARCH__)
  return __ldg(from);
#else
  return *from;
#endif
}

// Loads four bytes from such memory, at a multiple of four, of which [begin, end) are wanted, one at least. A GPU reads
// the others too; on the CPU they are anything.
PL_BOTH uint32_t load_constant_word(const uint8_t* from, int32_t begin, int32_t end) {
#if defined(__CUDA_ARCH__)
  return __ldg(reinterpret_cast<const uint32_t*>(from));
#else
  uint8_t bytes[4] = {0xA5, 0xA5, 0xA5, 0xA5};
  if (begin >= end || reinterpret_cast<uintptr_t>(from) % 4 != 0) __builtin_trap();
  std::memcpy(bytes + begin, from + begin, static_cast<size_t>(end - begin));
  uint32_t word;
  std::memcpy(&word, bytes, 4);
  return word;
#endif
}

// Returns four bytes of the eight in `low` and then `high`, from byte `at` on.
PL_BOTH uint32_t word_within(uint32_t low, uint32_t high, int32_t at) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(low, high, static_cast<uint32_t>(8 * at));
#else
  return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> (8 * at));
#endif
}

// Reads neighbouring bytes from anywhere in such memory, four at a time, by whole words.
class WordReader {
 public:
  // left: bytes that are wanted, 1 or more.
  PL_BOTH void begin(const uint8_t* from, int32_t left) {
    offset_ = static_cast<int32_t>(reinterpret_cast<uintptr_t>(from) % 4);
    at_ = from - offset_;
    word_ = load_constant_word(at_, offset_, least(4, offset_ + left));
  }

  // Returns the next four bytes, of which `left` are still wanted, 1 or more. The others are anything.
  PL_BOTH uint32_t next(int32_t left) {
    const uint32_t low = word_;
    const int32_t beyond = left - (4 - offset_);
    if (beyond > 0) word_ = load_constant_word(at_ += 4, 0, least(4, beyond));
    return word_within(low, word_, offset_);
  }

 private:
  PL_BOTH static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

  const uint8_t* at_;
  uint32_t word_;
  int32_t offset_;
};

PL_BOTH int32_t byte_of(uint32_t word, int32_t index) { return static_cast<int32_t>(word >> (8 * index) & 255u); }

// Stores four elements of `bytes` each, at a multiple of 4 * bytes.
PL_BOTH void store_four(uint8_t* to, const uint32_t (&v)[4], int32_t bytes) {
  if (bytes == 1) return store_word(to, v[0] | v[1] << 8 | v[2] << 16 | v[3] << 24);
#if defined(__CUDA_ARCH__)
  if (bytes == 2)
    *reinterpret_cast<uint2*>(to) = make_uint2(v[0] | v[1] << 16, v[2] | v[3] << 16);
  else
    *reinterpret_cast<uint4*>(to) = make_uint4(v[0], v[1], v[2], v[3]);
#else
  for (int i = 0; i < 4; ++i) std::memcpy(to + i * bytes, &v[i], static_cast<size_t>(bytes));
#endif
}

PL_BOTH void store_one(uint8_t* to, uint32_t v, int32_t bytes) {
#if defined(__CUDA_ARCH__)
  if (bytes == 1)
    *to = static_cast<uint8_t>(v);
  else if (bytes == 2)
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(v);
  else
    *reinterpret_cast<uint32_t*>(to) = v;
#else
  std::memcpy(to, &v, static_cast<size_t>(bytes));
#endif
}

// Adds integers, so that the order of blocks does not matter.
PL_BOTH void add_to(unsigned long long* sum, unsigned long long value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(sum, value);
#else
  *sum += value;
#endif
}

}  // namespace pass_loader::cuda
