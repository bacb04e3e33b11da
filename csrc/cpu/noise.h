// Normal numbers for what is erased, by their places.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::cpu {

constexpr size_t kNoiseRun = 256;  // numbers that are made at once

// Makes the numbers at the places [run * kNoiseRun, (run + 1) * kNoiseRun) of a key: each is the quantile of a uniform
// number of 53 bits, two of which come from a block of Philox words.
void noise_run(uint64_t key, uint64_t run, float* out);

}  // namespace pass_loader::cpu
