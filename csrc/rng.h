// Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011): makes four words from a
// counter. There is no state, so a decision's numbers depend on its key and counter alone, not on any order.
#pragma once
#include <array>
#include <cstdint>

namespace pass_loader {

using Words = std::array<uint32_t, 4>;

constexpr int kPhiloxRounds = 10;
constexpr uint32_t kPhiloxFactor0 = 0xD2511F53, kPhiloxFactor2 = 0xCD9E8D57, kPhiloxKey0 = 0x9E3779B9,
                   kPhiloxKey1 = 0xBB67AE85;

inline Words philox(Words counter, uint64_t key) {
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    uint64_t a = uint64_t{kPhiloxFactor0} * counter[0], b = uint64_t{kPhiloxFactor2} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    key0 += kPhiloxKey0;
    key1 += kPhiloxKey1;
  }
  return counter;
}

// Returns a number in [0, 1) from 53 bits of two words.
inline double unit(uint32_t high, uint32_t low) {
  return static_cast<double>((uint64_t{high} << 32 | low) >> 11) * 0x1p-53;
}

inline double uniform(double u, double low, double high) { return low + (high - low) * u; }

// Returns one of {0, ..., n - 1}. The bias is below n / 2^32.
inline uint32_t below(uint32_t word, uint32_t n) { return static_cast<uint32_t>(uint64_t{word} * n >> 32); }

}  // namespace pass_loader
