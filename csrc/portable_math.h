// The functions that plans and masks use. They are the same on every machine.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "isa.h"

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

constexpr double kPi = 3.141592653589793;

struct SinCos {
  double sin, cos;
};

// Returns both within 0.51 units of the last place, which libm's also keep, for angles within a few turns. The angle is
// taken to r + rest in [-pi/4, pi/4], with pi/2 in three parts, and each series ends by one addition to its largest
// term.
inline SinCos portable_sin_cos(double angle) {
  constexpr double kHalfPi[3] = {0x1.921fb54400000p+0, 0x1.0b4611a600000p-34, 0x1.3198a2e037073p-69};
  const double quarters = std::floor(angle * (2.0 / kPi) + 0.5);
  const double first = angle - quarters * kHalfPi[0];  // exact: the parts have zeros at their ends
  const double second = quarters * kHalfPi[1];
  const double r = first - second;
  const double rest = ((first - r) - second) - quarters * kHalfPi[2];
  const double r2 = r * r;
  double s = 0.0, c = 0.0;
  for (int i = 20; i >= 4; i -= 2) s = (s + 1.0) * (-r2 / (i * (i + 1)));
  for (int i = 22; i >= 6; i -= 2) c = (c + 1.0) * (-r2 / (i * (i - 1)));
  const double sin = r + (r * ((s + 1.0) * (-r2 / 6.0)) + rest);
  const double half = 0.5 * r2, high = 1.0 - half;
  const double low = (1.0 - high) - half;
  const double cos = high + (low + (r2 * r2 / 24.0 * (c + 1.0) - r * rest));
  switch (static_cast<int64_t>(quarters) & 3) {
    case 0:
      return {sin, cos};
    case 1:
      return {cos, -sin};
    case 2:
      return {-sin, -cos};
    default:
      return {-cos, sin};
  }
}

// Returns x rounded to 15 decimals, as Python's round(x, 15), for |x| <= 1.
inline double round_to_15_decimals(double x) {
  constexpr double kScale = 1e15;
  const double scaled = x * kScale, error = std::fma(x, kScale, -scaled);
  double whole = std::nearbyint(scaled);
  const double rest = (scaled - whole) + error;
  if (rest > 0.5) whole += 1.0;
  if (rest < -0.5) whole -= 1.0;
  return whole / kScale;
}

// The quantile of the normal distribution: Wichura's AS241 (Applied Statistics 37, 1988), relative error about 1e-16.
// Near the middle it is a quotient of polynomials of the distance q from it; in the tails of r, the root of -log of the
// probability that lies beyond.
constexpr double kQuantileNear = 0.425, kQuantileFar = 5.0;  // largest |q|, largest r of the nearer tail

template <size_t count>
PL_INLINE double polynomial(double x, const double (&c)[count]) {
  double sum = c[count - 1];
  for (size_t i = count - 1; i-- > 0;) sum = sum * x + c[i];
  return sum;
}

PL_INLINE double quantile_near(double q) {
  constexpr double over[] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
                             1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
                             3.3430575583588128105e4, 2.5090809287301226727e3};
  constexpr double under[] = {1.0,
                              4.2313330701600911252e1,
                              6.8718700749205790830e2,
                              5.3941960214247511077e3,
                              2.1213794301586595867e4,
                              3.9307895800092710610e4,
                              2.8729085735721942674e4,
                              5.2264952788528545610e3};
  const double r = 0.180625 - q * q;
  return q * polynomial(r, over) / polynomial(r, under);
}

PL_INLINE double quantile_far(double r) {
  constexpr double over[] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                             3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                             2.27238449892691845833e-2, 7.74545014278341407640e-4};
  constexpr double under[] = {1.0,
                              2.05319162663775882187e0,
                              1.67638483018380384940e0,
                              6.89767334985100004550e-1,
                              1.48103976427480074590e-1,
                              1.51986665636164571966e-2,
                              5.47593808499534494600e-4,
                              1.05075007164441684324e-9};
  return polynomial(r - 1.6, over) / polynomial(r - 1.6, under);
}

inline double quantile_farthest(double r) {
  constexpr double over[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                             2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                             2.71155556874348757815e-5, 2.01033439929228813265e-7};
  constexpr double under[] = {1.0,
                              5.99832206555887937690e-1,
                              1.36929880922735805310e-1,
                              1.48753612908506148525e-2,
                              7.86869131145613259100e-4,
                              1.84631831751005468180e-5,
                              1.42151175831644588870e-7,
                              2.04426310338993978564e-15};
  return polynomial(r - 5.0, over) / polynomial(r - 5.0, under);
}

// Returns the value below which a standard normal number lies with probability p in (0, 1).
inline double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::fabs(q) <= kQuantileNear) return quantile_near(q);
  const double r = std::sqrt(-portable_log(q < 0.0 ? p : 1.0 - p));
  const double value = r <= kQuantileFar ? quantile_far(r) : quantile_farthest(r);
  return q < 0.0 ? -value : value;
}

// Rounds halves to even, as Python's round().
inline int64_t round_half_even(double x) {
  double floor = std::floor(x), rest = x - floor;
  int64_t n = static_cast<int64_t>(floor);
  if (rest > 0.5 || (rest == 0.5 && n % 2 != 0)) ++n;
  return n;
}

}  // namespace pass_loader
