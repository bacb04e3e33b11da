// The ways of the first pass: what first_pass.cu times and tests/native/cuda/emulate.cpp compares. The first one is the
// renderer's.
#pragma once
#include "cuda/kernels.h"

namespace pass_loader::cuda {

template <typename Kernel>
struct Way {
  using Pass = Kernel;
  const char* name;
};

// use(number, way) of each.
template <typename Use>
void each_way(const Use& use) {
  int number = 0;
  auto way = [&]<typename Kernel>(Way<Kernel> one) { use(number++, one); };
  way(Way<FirstPass>{"8 rows, 4 taps, bytes (the renderer's)"});
  way(Way<FirstPassOf<8, 1, 3, 2, Read::bytes>>{"8 rows, 2 taps, bytes, 3 blocks"});
  way(Way<FirstPassOf<8, 1, 4, 1, Read::bytes>>{"8 rows, 1 tap, bytes, 4 blocks"});
  way(Way<FirstPassOf<8, 1, 1, 2, Read::constant_bytes>>{"8 rows, 2 taps, constant bytes"});
  way(Way<FirstPassOf<8, 1, 3, 2, Read::constant_bytes>>{"8 rows, 2 taps, constant bytes, 3 blocks"});
  way(Way<FirstPassOf<8, 1, 4, 1, Read::constant_bytes>>{"8 rows, 1 tap, constant bytes, 4 blocks"});
  way(Way<FirstPassOf<4, 1, 4, 2, Read::constant_bytes>>{"4 rows, 2 taps, constant bytes, 4 blocks"});
  way(Way<FirstPassOf<4, 2, 4, 2, Read::constant_bytes>>{"4 rows, 2 taps, constant bytes, 4 blocks, half tiles"});
  way(Way<FirstPassOf<4, 2, 5, 1, Read::constant_bytes>>{"4 rows, 1 tap, constant bytes, 5 blocks, half tiles"});
  way(Way<FirstPassOf<8, 1, 1, 1, Read::constant_words>>{"8 rows, 4 taps, words"});
  way(Way<FirstPassOf<8, 1, 3, 1, Read::constant_words>>{"8 rows, 4 taps, words, 3 blocks"});
  way(Way<FirstPassOf<4, 1, 4, 1, Read::constant_words>>{"4 rows, 4 taps, words, 4 blocks"});
  way(Way<FirstPassOf<2, 4, 5, 1, Read::constant_words>>{"2 rows, 4 taps, words, 5 blocks, quarter tiles"});
}

}  // namespace pass_loader::cuda
