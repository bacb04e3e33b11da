// The functions that plans and masks use. They are the same on every machine.
#pragma once
#include <cmath>
#include <cstdint>

namespace pass_loader {

// exp and log from + - * / alone, so that a plan is the same on every machine (libm's differ in the last place).
// Relative error below 1e-14 for the ratios a recipe may hold (1/1000 to 1000).
constexpr double kLn2 = 0.6931471805599453;

inline double portable_exp(double x) {
  int halvings = 0;
  while (x > 0.5 || x < -0.5) {
    x *= 0.5;
    ++halvings;
  }
  double sum = 1.0;
  for (int i = 18; i >= 1; --i) sum = 1.0 + x / i * sum;  // Taylor; 0.5^19 / 19! < 2^-75
  for (; halvings > 0; --halvings) sum *= sum;
  return sum;
}

inline double portable_log(double x) {
  int power = 0;
  for (; x > 1.5; x *= 0.5) ++power;
  for (; x < 0.75; x *= 2.0) --power;
  double t = (x - 1.0) / (x + 1.0), t2 = t * t, sum = 0.0;  // log x = 2 atanh(t), |t| <= 1/5
  for (int i = 25; i >= 1; i -= 2) sum = sum * t2 + 1.0 / i;
  return 2.0 * t * sum + power * kLn2;
}

// Rounds halves to even, as Python's round().
inline int64_t round_half_even(double x) {
  double floor = std::floor(x), rest = x - floor;
  int64_t n = static_cast<int64_t>(floor);
  if (rest > 0.5 || (rest == 0.5 && n % 2 != 0)) ++n;
  return n;
}

}  // namespace pass_loader
