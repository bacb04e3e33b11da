// The further steps of views: which ones run, and with which numbers.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.h"
#include "plan.h"
#include "portable_math.h"

namespace pass_loader {
namespace {

// A decision's place in the counter, see plan.cpp. Each group has kGroupSlots from kFirstGroup on, or of steps before
// the crop from kFirstBefore on: its own, then those of the steps of the chosen option, kStepSlots each.
enum Slot : uint32_t {
  kFirstGroup = 32,
  kFirstBefore = 1 << 21,
  kGroupSlots = 256,
  kGroup = 0,  // whether it runs, which option
  kFirstStep = 4,
  kStepSlots = 4,
  kRuns = 0,   // whether the step runs, sign, resample
  kValue = 1,  // its value; level: then blur_below's sigma; affine and perspective: two or four numbers a slot
  // A step that erases has kEraseSlots more, from kFirstErase on.
  kFirstErase = 1 << 22,
  kEraseSlots = 16,
  kEraseTries = 10,  // 10 tries: area, log aspect
  kErasePlace = 10,
  kEraseValues = 11,  // two slots of two numbers
};
constexpr int32_t kMaxGroups = 4096;
constexpr int32_t kMaxOptionSteps = 60;

constexpr bool plans_hold(StepOp op) { return op <= StepOp::ground; }
constexpr bool specs_hold(StepOp op) {
  return op != StepOp::affine && op != StepOp::perspective &&
         (plans_hold(op) || (op >= StepOp::shear_x && op <= StepOp::random_perspective));
}
constexpr bool resamples(StepOp op) { return op == StepOp::affine || op == StepOp::perspective; }
constexpr bool moves(StepOp op) {
  return (op >= StepOp::shear_x && op <= StepOp::random_affine) || op == StepOp::random_perspective;
}

// The whole picture's sides are not known to a recipe.
constexpr bool may_stand_before(StepOp op) {
  return op != StepOp::erase && op != StepOp::kernel_blur && op != StepOp::quarter_turn;
}

constexpr bool fills(StepOp op) { return moves(op) || resamples(op) || op == StepOp::ground; }

double unit_at(const Words& words, int pair) { return unit(words[2 * pair], words[2 * pair + 1]); }

// timm/data/auto_augment.py: AugmentOp.__call__ and LEVEL_TO_ARG. values: mean, standard deviation (infinite: uniform
// in [0, mean)), upper limit of the level, then scale, offset, lowest and highest of the value offset +- scale level
// / 10.
double level_value(const StepSpec& spec, double u, uint32_t coin) {
  const double* v = spec.values;
  double level = v[0];
  if (std::isinf(v[1])) {
    level = uniform(u, 0.0, v[0]);
  } else if (v[1] > 0.0) {
    level = v[0] + normal_quantile(std::max(u, 0x1p-54)) * v[1];
  }
  level = std::max(0.0, std::min(level, v[2]));
  double value = level / 10.0 * v[3];
  if (spec.whole) value = std::floor(value);
  if (spec.sign < 0 || (spec.sign == 0 && coin >> 31 != 0)) value = -value;
  return std::max(v[5], std::min(v[4] + value, v[6]));
}

double value_of(const StepSpec& spec, const Words& value, uint32_t coin) {
  const double u = unit_at(value, 0);
  switch (spec.kind) {
    case ValueKind::one_of:
      return spec.values[below(value[0], static_cast<uint32_t>(spec.count))];
    case ValueKind::uniform:
      return uniform(u, spec.values[0], spec.values[1]);
    case ValueKind::level:
      return level_value(spec, u, coin);
    default:
      return 0.0;
  }
}

void set_matrix(StepPlan& step, const double (&matrix)[6]) {
  step.op = StepOp::affine;
  std::copy(std::begin(matrix), std::end(matrix), step.matrix);
}

// Pillow, Image.rotate without expand, center and translate.
void set_rotation(StepPlan& step, double degrees, int32_t height, int32_t width) {
  double angle = std::fmod(degrees, 360.0);
  if (angle < 0.0) angle += 360.0;
  if (angle == 0.0 || angle == 360.0) {
    step.op = StepOp::none;
    return;
  }
  if (angle == 180.0 || ((angle == 90.0 || angle == 270.0) && height == width)) {
    step.op = StepOp::quarter_turn;
    step.level = static_cast<int16_t>(angle / 90.0);
    return;
  }
  const SinCos at = portable_sin_cos(-(angle * (kPi / 180.0)));
  const double cos = round_to_15_decimals(at.cos), sin = round_to_15_decimals(at.sin);
  const double x = width / 2.0, y = height / 2.0;
  set_matrix(step, {cos, sin, cos * -x + sin * -y + 0.0 + x, -sin, cos, -sin * -x + cos * -y + 0.0 + y});
}

// torchvision, transforms.RandomAffine.get_params and functional._get_inverse_affine_matrix around the view's centre.
// values: ranges of the angle in degrees, shares of the width and height that it is moved by at most, ranges of the
// scale and of both shears in degrees.
void set_random_affine(const StepSpec& spec, const Draws& draws, uint32_t slot, int32_t height, int32_t width,
                       StepPlan& step) {
  const double* v = spec.values;
  const Words a = draws.words(slot), b = draws.words(slot + 1), c = draws.words(slot + 2);
  const double to_radians = kPi / 180.0, most_x = v[2] * width, most_y = v[3] * height;
  const double angle = uniform(unit_at(a, 0), v[0], v[1]) * to_radians;
  const auto moved_x = static_cast<double>(round_half_even(uniform(unit_at(a, 1), -most_x, most_x)));
  const auto moved_y = static_cast<double>(round_half_even(uniform(unit_at(b, 0), -most_y, most_y)));
  const double scale = uniform(unit_at(b, 1), v[4], v[5]);
  const SinCos shear_x = portable_sin_cos(uniform(unit_at(c, 0), v[6], v[7]) * to_radians);
  const double shear = uniform(unit_at(c, 1), v[8], v[9]) * to_radians;
  const SinCos shear_y = portable_sin_cos(shear), turn = portable_sin_cos(angle),
               both = portable_sin_cos(angle - shear);
  const double tan = shear_x.sin / shear_x.cos, x = width * 0.5, y = height * 0.5;
  const double m0 = (-both.sin * tan / shear_y.cos + turn.cos) / scale;
  const double m1 = -(-both.cos * tan / shear_y.cos - turn.sin) / scale;
  const double m3 = -(both.sin / shear_y.cos) / scale, m4 = both.cos / shear_y.cos / scale;
  set_matrix(step, {m0, m1, 0.0 / scale + (m0 * (-x - moved_x) + m1 * (-y - moved_y)) + x,  //
                    m3, m4, 0.0 / scale + (m3 * (-x - moved_x) + m4 * (-y - moved_y)) + y});
}

// Solves 8 linear equations by elimination with pivots. row: 8 factors and the right side. Returns false if there is no
// one solution.
bool solve(double (&row)[8][9], double (&solution)[8]) {
  for (int i = 0; i < 8; ++i) {
    int pivot = i;
    for (int k = i + 1; k < 8; ++k)
      if (std::fabs(row[k][i]) > std::fabs(row[pivot][i])) pivot = k;
    if (row[pivot][i] == 0.0) return false;
    std::swap(row[i], row[pivot]);
    for (int k = i + 1; k < 8; ++k) {
      const double factor = row[k][i] / row[i][i];
      for (int j = i; j < 9; ++j) row[k][j] -= factor * row[i][j];
    }
  }
  for (int i = 7; i >= 0; --i) {
    double sum = row[i][8];
    for (int j = i + 1; j < 8; ++j) sum -= row[i][j] * solution[j];
    solution[i] = sum / row[i][i];
  }
  return true;
}

// torchvision, transforms.RandomPerspective.get_params and functional._get_perspective_coeffs, which are rounded to
// float32. distortion: how far a corner moves at most, as a share of half a side.
void set_random_perspective(double distortion, const Draws& draws, uint32_t slot, int32_t height, int32_t width,
                            StepPlan& step) {
  const Words a = draws.words(slot), b = draws.words(slot + 1);
  const auto most_x = static_cast<uint32_t>(distortion * (width / 2)) + 1;
  const auto most_y = static_cast<uint32_t>(distortion * (height / 2)) + 1;
  const double right = width - 1, bottom = height - 1;
  const double corners[4][2] = {{0.0, 0.0}, {right, 0.0}, {right, bottom}, {0.0, bottom}};
  const double moved[4][2] = {{1.0 * below(a[0], most_x), 1.0 * below(a[1], most_y)},
                              {right - below(a[2], most_x), 1.0 * below(a[3], most_y)},
                              {right - below(b[0], most_x), bottom - below(b[1], most_y)},
                              {1.0 * below(b[2], most_x), bottom - below(b[3], most_y)}};
  double row[8][9] = {}, solution[8];
  for (int i = 0; i < 4; ++i) {
    const double x = moved[i][0], y = moved[i][1];
    for (int axis = 0; axis < 2; ++axis) {
      double* r = row[2 * i + axis];
      const double to = corners[i][axis];
      r[3 * axis] = x, r[3 * axis + 1] = y, r[3 * axis + 2] = 1.0;
      r[6] = -to * x, r[7] = -to * y, r[8] = to;
    }
  }
  step.op = StepOp::none;
  if (!solve(row, solution)) return;  // corners that lie on one line
  step.op = StepOp::perspective;
  for (int i = 0; i < 8; ++i) step.matrix[i] = static_cast<float>(solution[i]);
}

// timm 1.0.31, data/random_erasing.py: RandomErasing._erase; torchvision, transforms.RandomErasing.get_params.
// values: ranges of the share of the area and of height / width, an EraseMode, a value a channel.
void set_erase(const StepSpec& spec, const Draws& draws, uint32_t own, int32_t height, int32_t width, StepPlan& step) {
  const double* v = spec.values;
  const uint32_t slot = kFirstErase + kEraseSlots * own;
  const double area = static_cast<double>(height) * width, log_min = portable_log(v[2]), log_max = portable_log(v[3]);
  step.op = StepOp::none;
  for (uint32_t attempt = 0; attempt < kEraseTries && step.op == StepOp::none; ++attempt) {
    const Words words = draws.words(slot + attempt);
    const double target = area * uniform(unit_at(words, 0), v[0], v[1]);
    const double aspect = portable_exp(uniform(unit_at(words, 1), log_min, log_max));
    const int64_t tall = round_half_even(std::sqrt(target * aspect)),
                  wide = round_half_even(std::sqrt(target / aspect));
    if (tall >= height || wide >= width) continue;
    const Words place = draws.words(slot + kErasePlace);
    step.op = StepOp::erase;
    step.matrix[0] = below(place[1], static_cast<uint32_t>(width - wide) + 1);
    step.matrix[1] = below(place[0], static_cast<uint32_t>(height - tall) + 1);
    step.matrix[2] = static_cast<double>(wide), step.matrix[3] = static_cast<double>(tall);
  }
  if (step.op == StepOp::none) return;
  const Words a = draws.words(slot + kEraseValues), b = draws.words(slot + kEraseValues + 1);
  step.level = static_cast<int16_t>(v[4]);
  auto normal = [](double u) { return static_cast<double>(static_cast<float>(normal_quantile(std::max(u, 0x1p-54)))); };
  const bool drawn = static_cast<EraseMode>(step.level) == EraseMode::colour;
  const double colour[3] = {normal(unit_at(a, 0)), normal(unit_at(a, 1)), normal(unit_at(b, 0))};
  for (int c = 0; c < 3; ++c) step.matrix[4 + c] = drawn ? colour[c] : static_cast<float>(v[5 + c]);
  if (static_cast<EraseMode>(step.level) == EraseMode::noise)
    step.matrix[4] = a[0], step.matrix[5] = a[1], step.matrix[6] = 0.0;
}

// Whole numbers are cut, as Python's int(); a threshold of solarize is rounded up, so that x < threshold is the same.
void set_level(StepPlan& step, double value, double most) {
  step.level = static_cast<int16_t>(std::max(0.0, std::min(value, most)));
}

// Decides the numbers of one step that runs. Its op becomes none if it would change nothing.
StepPlan decided(const StepSpec& spec, const Draws& draws, uint32_t slot, int32_t height, int32_t width) {
  const Words runs = draws.words(slot + kRuns), number = draws.words(slot + kValue);
  const double value = value_of(spec, number, runs[2]);
  StepPlan step;
  std::memset(static_cast<void*>(&step), 0, sizeof step);
  step.op = spec.op;
  step.before = spec.before;
  if (fills(spec.op)) std::copy(std::begin(spec.fill), std::end(spec.fill), step.fill);
  if (moves(spec.op)) step.resample = spec.resample == kAnyResample ? (runs[3] >> 31 != 0 ? 3 : 2) : spec.resample;
  switch (spec.op) {
    case StepOp::posterize:
      set_level(step, value, 8.0);
      if (step.level == 8) step.op = StepOp::none;
      break;
    case StepOp::solarize:
      set_level(step, std::ceil(value), 256.0);
      if (step.level == 256) step.op = StepOp::none;
      break;
    case StepOp::solarize_add:
      set_level(step, value, 255.0);
      break;
    case StepOp::quarter_turn:
      step.level = static_cast<int16_t>(static_cast<int>(value) & 3);
      if (step.level == 0) step.op = StepOp::none;
      break;
    case StepOp::kernel_blur:
      step.level = spec.taps;
      [[fallthrough]];
    case StepOp::brightness:
    case StepOp::contrast:
    case StepOp::saturation:
    case StepOp::sharpness:
    case StepOp::hue:
    case StepOp::blur:
      step.factor = static_cast<float>(value);
      break;
    case StepOp::desaturate:
      step.op = StepOp::saturation;
      step.factor = static_cast<float>(std::min(1.0, std::max(0.0, 1.0 - value)));
      break;
    case StepOp::blur_below:
      step.op = StepOp::blur;
      step.factor = static_cast<float>(uniform(unit_at(number, 1), 0.1, 2.0 * value));
      break;
    case StepOp::shear_x:
      set_matrix(step, {1.0, value, 0.0, 0.0, 1.0, 0.0});
      break;
    case StepOp::shear_y:
      set_matrix(step, {1.0, 0.0, 0.0, value, 1.0, 0.0});
      break;
    case StepOp::translate_x:
      set_matrix(step, {1.0, 0.0, value, 0.0, 1.0, 0.0});
      break;
    case StepOp::translate_y:
      set_matrix(step, {1.0, 0.0, 0.0, 0.0, 1.0, value});
      break;
    case StepOp::translate_x_share:
      set_matrix(step, {1.0, 0.0, value * width, 0.0, 1.0, 0.0});
      break;
    case StepOp::translate_y_share:
      set_matrix(step, {1.0, 0.0, 0.0, 0.0, 1.0, value * height});
      break;
    case StepOp::rotate:
      set_rotation(step, value, height, width);
      break;
    case StepOp::random_affine:
      set_random_affine(spec, draws, slot + kValue, height, width, step);
      break;
    case StepOp::random_perspective:
      set_random_perspective(value, draws, slot + kValue, height, width, step);
      break;
    case StepOp::erase:
      set_erase(spec, draws, slot, height, width, step);
      break;
    default:
      break;
  }
  return step;
}

// The limits of recipes and plans

void check_kind(const StepSpec& s) {
  const bool has_value = s.op == StepOp::posterize || (s.op >= StepOp::solarize && s.op <= StepOp::hue) ||
                         s.op == StepOp::blur || s.op == StepOp::kernel_blur || s.op == StepOp::quarter_turn ||
                         (s.op >= StepOp::shear_x && s.op != StepOp::random_affine);
  const bool fits = s.op == StepOp::random_affine ? s.kind == ValueKind::affine
                    : s.op == StepOp::erase       ? s.kind == ValueKind::erase
                    : has_value                   ? s.kind >= ValueKind::one_of && s.kind <= ValueKind::level
                                                  : s.kind == ValueKind::none;
  PL_CHECK(fits, Fault::argument,
           "recipe, view %d, group %d of its further steps: op %d cannot have a value of kind %d", s.view, s.group,
           static_cast<int>(s.op), static_cast<int>(s.kind));
}

// Returns the lowest and the highest value that a step may get.
struct Ends {
  double low, high;
};
Ends ends_of(const StepSpec& s) {
  if (s.kind == ValueKind::level) return {s.values[5], s.values[6]};
  const int count = s.kind == ValueKind::uniform ? 2 : s.count;
  const auto [low, high] = std::minmax_element(s.values, s.values + count);
  return {*low, *high};
}

// Returns the values that an op takes. Factors are within what a jitter may have.
Ends allowed(StepOp op) {
  switch (op) {
    case StepOp::posterize:
      return {0.0, 8.0};
    case StepOp::solarize:
      return {0.0, 256.0};
    case StepOp::solarize_add:
      return {0.0, 255.0};
    case StepOp::hue:
      return {-0.5, 0.5};
    case StepOp::blur:
    case StepOp::kernel_blur:
      return {0.0, 1000.0};
    case StepOp::quarter_turn:
      return {0.0, 3.0};
    case StepOp::desaturate:
    case StepOp::blur_below:
    case StepOp::random_perspective:
      return {0.0, 1.0};
    case StepOp::erase:
      return {0.0, 2.0};
    case StepOp::shear_x:
    case StepOp::shear_y:
      return {-100.0, 100.0};
    case StepOp::translate_x:
    case StepOp::translate_y:
      return {-1e5, 1e5};
    case StepOp::translate_x_share:
    case StepOp::translate_y_share:
      return {-4.0, 4.0};
    case StepOp::rotate:
      return {-1e4, 1e4};
    default:
      return {-1e6, 1e6};
  }
}

void check_values(const StepSpec& s) {
  const double* v = s.values;
  if (s.kind == ValueKind::none) return;
  if (s.kind == ValueKind::affine) {
    const bool good = v[0] <= v[1] && v[0] >= -1e4 && v[1] <= 1e4 && v[2] >= 0.0 && v[2] <= 1.0 && v[3] >= 0.0 &&
                      v[3] <= 1.0 && v[4] <= v[5] && v[4] >= 0.01 && v[5] <= 100.0 && v[6] <= v[7] && v[6] >= -89.0 &&
                      v[7] <= 89.0 && v[8] <= v[9] && v[8] >= -89.0 && v[9] <= 89.0;
    PL_CHECK(good, Fault::argument,
             "recipe, view %d, group %d of its further steps: want ranges low <= high, degrees within 1e4, shares of "
             "the view in [0, 1], scale in [0.01, 100], shear within 89 degrees",
             s.view, s.group);
    return;
  }
  if (s.kind == ValueKind::erase) {
    const bool good = v[0] <= v[1] && v[0] >= 0.0 && v[1] <= 1.0 && v[2] <= v[3] && v[2] >= 1e-3 && v[3] <= 1e3 &&
                      (v[4] == 0.0 || v[4] == 1.0 || v[4] == 2.0) &&
                      std::all_of(v + 5, v + 8, [](double value) { return std::abs(value) <= 1e30; });
    PL_CHECK(
        good, Fault::argument,
        "recipe, view %d, group %d of its further steps: erase wants ranges low <= high, area in [0, 1], aspect in "
        "[0.001, 1000]",
        s.view, s.group);
    return;
  }
  PL_CHECK(s.kind != ValueKind::one_of || (s.count >= 1 && s.count <= kStepValues), Fault::argument,
           "recipe, view %d, group %d of its further steps: one of %d values, want 1 to %d", s.view, s.group, s.count,
           kStepValues);
  if (s.kind == ValueKind::level)
    PL_CHECK(v[0] >= 0.0 && v[0] <= 1e3 && v[1] >= 0.0 && v[2] >= 0.0 && v[2] <= 1e3 && std::abs(v[3]) <= 1e4 &&
                 std::abs(v[4]) <= 1e4 && s.sign >= -1 && s.sign <= 1,
             Fault::argument,
             "recipe, view %d, group %d of its further steps: a level of %g, at most %g, is out of range", s.view,
             s.group, v[0], v[2]);
  const Ends may = allowed(s.op), has = ends_of(s);
  PL_CHECK(has.low >= may.low && has.high <= may.high && (s.kind != ValueKind::uniform || v[0] <= v[1]),
           Fault::argument,
           "recipe, view %d, group %d of its further steps: the value of op %d is in [%g, %g], want low <= high within "
           "[%g, %g]",
           s.view, s.group, static_cast<int>(s.op), has.low, has.high, may.low, may.high);
}

void check_taps(int taps, int32_t height, int32_t width, const char* where) {
  PL_CHECK(taps % 2 == 1 && taps >= 3 && taps <= 255 && std::min(height, width) > taps / 2, Fault::argument,
           "%s: a blur of %d taps on %d x %d: want an odd number from 3, and half of it below the view's sides", where,
           taps, height, width);
}

void check_row(const StepSpec& s, const ViewSpec& view) {
  PL_CHECK(specs_hold(s.op), Fault::argument, "recipe, view %d, group %d of its further steps: there is no op %d",
           s.view, s.group, static_cast<int>(s.op));
  PL_CHECK(s.probability >= 0.0 && s.probability <= 1.0 && s.group_probability >= 0.0 && s.group_probability <= 1.0,
           Fault::argument, "recipe, view %d, group %d of its further steps: %g or %g is no probability", s.view,
           s.group, s.probability, s.group_probability);
  PL_CHECK(s.resample == 0 || s.resample == 2 || s.resample == 3 || s.resample == kAnyResample, Fault::argument,
           "recipe, view %d, group %d of its further steps: resample is %d, want 0, 2, 3 or 255", s.view, s.group,
           s.resample);
  PL_CHECK(s.before || s.op != StepOp::ground, Fault::argument,
           "recipe, view %d, group %d of its further steps: ground is of the picture before the crop", s.view, s.group);
  PL_CHECK(!s.before || may_stand_before(s.op), Fault::argument,
           "recipe, view %d, group %d of its steps before the crop: op %d cannot stand there: erase, kernel_blur and "
           "quarter_turn are of the view",
           s.view, s.group, static_cast<int>(s.op));
  check_kind(s);
  check_values(s);
  if (s.op == StepOp::kernel_blur) check_taps(s.taps, view.out_height, view.out_width, "recipe");
  PL_CHECK(s.op != StepOp::quarter_turn || view.out_height == view.out_width || (s.count == 1 && s.values[0] == 2.0),
           Fault::argument, "recipe, view %d: a quarter turn needs a square view, this one is %d x %d", s.view,
           view.out_height, view.out_width);
}

}  // namespace

StepRecipe::StepRecipe(std::span<const StepSpec> rows, std::span<const ViewSpec> recipe)
    : rows_(rows.begin(), rows.end()) {
  if (rows.empty()) return;
  const auto views = static_cast<int32_t>(recipe.size());
  size_t group_most = 0, view_total = 0, option_length = 0;
  bool erases = false;  // a row of the view before this one
  for (size_t i = 0; i < rows.size(); ++i) {
    const StepSpec& s = rows[i];
    const StepSpec* before = i == 0 ? nullptr : &rows[i - 1];
    PL_CHECK(s.view >= 0 && s.view < views && s.group >= 0 && s.group < kMaxGroups && s.option >= 0, Fault::argument,
             "further steps: row %zu is of view %d, group %d, option %d", i, s.view, s.group, s.option);
    check_row(s, recipe[static_cast<size_t>(s.view)]);
    const bool new_view = before == nullptr || s.view != before->view;
    const bool new_place = new_view || s.before != before->before;  // before the crop, then after it
    const bool new_group = new_place || s.group != before->group;
    const bool new_option = new_group || s.option != before->option;
    const double from = new_group ? 0.0 : before->option_below;
    const bool in_order = (new_place ? (before == nullptr || s.view > before->view || !s.before) && s.group == 0
                                     : s.group == before->group || s.group == before->group + 1) &&
                          (before == nullptr || s.view >= before->view) &&
                          (new_group ? s.option == 0 : s.option == before->option || s.option == before->option + 1) &&
                          (new_option ? s.option_below >= from : s.option_below == from) && s.option_below <= 1.0 &&
                          (new_group || s.group_probability == before->group_probability) &&
                          (before == nullptr || !new_group || before->option_below == 1.0);
    PL_CHECK(in_order, Fault::argument, "further steps: row %zu does not follow from the row before it", i);
    if (new_group) view_total += group_most, group_most = 0;
    if (new_view) count_ = std::max(count_, view_total), view_total = 0;
    erases = !new_view && (erases || before->op == StepOp::erase);
    PL_CHECK(!erases || s.op == StepOp::erase || s.op == StepOp::none, Fault::argument,
             "recipe, view %d: erase runs after normalisation, and group %d of its further steps follows it", s.view,
             s.group);
    option_length = new_option ? 1 : option_length + 1;
    PL_CHECK(option_length <= kMaxOptionSteps, Fault::argument, "further steps: more than %d steps in a row",
             kMaxOptionSteps);
    group_most = std::max(group_most, option_length);
    while (first_.size() <= static_cast<size_t>(s.view)) first_.push_back(i);
  }
  PL_CHECK(rows.back().option_below == 1.0, Fault::argument, "further steps: the last option's bound is %g, want 1",
           rows.back().option_below);
  count_ = std::max(count_, view_total + group_most);
  while (first_.size() <= recipe.size()) first_.push_back(rows.size());
}

bool StepRecipe::has_colour() const {
  return std::any_of(rows_.begin(), rows_.end(), [](const StepSpec& s) {
    return fills(s.op) && (s.fill[0] != s.fill[1] || s.fill[0] != s.fill[2]);
  });
}

bool StepRecipe::erases() const {
  return std::any_of(rows_.begin(), rows_.end(), [](const StepSpec& s) { return s.op == StepOp::erase; });
}

std::span<const StepSpec> StepRecipe::rows_of(size_t view) const {
  return {rows_.data() + first_[view], first_[view + 1] - first_[view]};
}

void StepRecipe::plan(std::span<const ViewSpec> recipe, size_t view, const SampleKey& key, int32_t height,
                      int32_t width, std::span<StepPlan> steps) const {
  std::memset(static_cast<void*>(steps.data()), 0, steps.size_bytes());
  const size_t row_of_view = drawn_row(recipe, view, key);
  const ViewSpec& spec = recipe[row_of_view];
  const std::span<const StepSpec> rows = rows_of(row_of_view);
  const auto own = static_cast<uint32_t>(view);
  const uint32_t with =
      spec.box_of < 0 ? own : static_cast<uint32_t>(spec.box_of);  // they share what they are cut from
  size_t used = 0;
  for (size_t i = 0; i < rows.size();) {
    const int32_t group = rows[i].group;
    const bool before = rows[i].before;
    const Draws draws = draws_of(key, before ? with : own);
    const uint32_t slot = (before ? kFirstBefore : kFirstGroup) + kGroupSlots * static_cast<uint32_t>(group);
    const Words words = draws.words(slot + kGroup);
    const bool runs = unit_at(words, 0) < rows[i].group_probability;
    const double choice = unit_at(words, 1);
    int32_t chosen = -1;
    uint32_t place = 0;
    for (; i < rows.size() && rows[i].group == group && rows[i].before == before; ++i) {
      const StepSpec& row = rows[i];
      if (chosen < 0 && choice < row.option_below) chosen = row.option;
      if (!runs || row.option != chosen) continue;
      const uint32_t at = slot + kFirstStep + kStepSlots * place++;
      if (row.op == StepOp::none || !(draws.first(at + kRuns) < row.probability)) continue;
      const StepPlan step = decided(row, draws, at, before ? height : spec.out_height, before ? width : spec.out_width);
      if (step.op == StepOp::none) continue;
      PL_CHECK(!before || step.op == StepOp::ground || std::max(height, width) <= kMaxOutPx, Fault::record,
               "the picture is %d x %d (height x width), and a step before the crop takes sides of at most %d", height,
               width, kMaxOutPx);
      steps[used++] = step;
    }
  }
}

void check_rectangle(const StepPlan& step, const ViewPlan& plan) {
  const double* m = step.matrix;
  auto whole = [](double value, double most) { return value >= 0.0 && value <= most && value == std::floor(value); };
  const bool inside = whole(m[2], plan.out_width) && whole(m[3], plan.out_height) &&
                      whole(m[0], plan.out_width - m[2]) && whole(m[1], plan.out_height - m[3]);
  const bool noise = static_cast<EraseMode>(step.level) == EraseMode::noise;
  const bool values = std::all_of(
      m + 4, m + 7, [&](double value) { return noise ? whole(value, 0xFFFFFFFFp0) : std::abs(value) <= 1e30; });
  PL_CHECK(inside && values, Fault::argument,
           "plan: the rectangle x %g, y %g, width %g, height %g that a further step erases leaves the view, or its "
           "values are out of range",
           m[0], m[1], m[2], m[3]);
}

void check_steps(std::span<const StepPlan> steps, const ViewPlan& plan, int32_t height, int32_t width, int channels) {
  bool over = false, erases = false, before = true;
  for (const StepPlan& s : steps) {
    PL_CHECK(plans_hold(s.op) && (!over || s.op == StepOp::none), Fault::argument,
             "plan: a further step has op %d, want one of 0 to %d, and none after 0", static_cast<int>(s.op),
             static_cast<int>(StepOp::ground));
    over = s.op == StepOp::none;
    const bool too_large = s.op != StepOp::ground && std::max(height, width) > kMaxOutPx;
    PL_CHECK(!s.before || (before && s.op != StepOp::erase && s.op != StepOp::kernel_blur && !too_large),
             Fault::argument,
             "plan: a step before the crop has op %d, which is of the view, or follows one that is not before it, or "
             "the picture of %d x %d has a side above %d",
             static_cast<int>(s.op), height, width, kMaxOutPx);
    PL_CHECK(s.before || s.op != StepOp::ground, Fault::argument, "plan: ground stands after the crop");
    before = s.before;
    PL_CHECK(!erases || over || s.op == StepOp::erase, Fault::argument,
             "plan: a further step has op %d after one that erases, which runs after normalisation",
             static_cast<int>(s.op));
    erases = s.op == StepOp::erase;
    const Ends level = s.op == StepOp::quarter_turn  ? Ends{1.0, 3.0}
                       : s.op == StepOp::kernel_blur ? Ends{3.0, 255.0}
                                                     : allowed(s.op);
    PL_CHECK(s.level >= level.low && s.level <= level.high, Fault::argument,
             "plan: the level of a further step, op %d, is %d, want [%g, %g]", static_cast<int>(s.op), s.level,
             level.low, level.high);
    const bool blurs = s.op == StepOp::blur || s.op == StepOp::kernel_blur;
    const Ends factor = blurs || s.op == StepOp::hue ? allowed(s.op) : Ends{-1e6, 1e6};
    PL_CHECK(s.factor >= factor.low && s.factor <= factor.high, Fault::argument,
             "plan: the factor of a further step, op %d, is %g, want [%g, %g]", static_cast<int>(s.op),
             static_cast<double>(s.factor), factor.low, factor.high);
    if (s.op == StepOp::kernel_blur) check_taps(s.level, plan.out_height, plan.out_width, "plan");
    const bool square = s.before ? height == width : plan.out_height == plan.out_width;
    PL_CHECK(s.op != StepOp::quarter_turn || s.level == 2 || square, Fault::argument,
             "plan: a quarter turn needs a square view, this one is %d x %d", plan.out_height, plan.out_width);
    if (s.op == StepOp::erase) check_rectangle(s, plan);
    PL_CHECK(!fills(s.op) || channels == 3 || (s.fill[0] == s.fill[1] && s.fill[0] == s.fill[2]), Fault::argument,
             "plan: the fill (%d, %d, %d) is a colour, and the picture is gray", s.fill[0], s.fill[1], s.fill[2]);
    if (!resamples(s.op)) continue;
    const bool finite = std::all_of(s.matrix, s.matrix + 8, [](double m) { return std::abs(m) <= 1e6; });
    PL_CHECK(finite && std::abs(s.matrix[0]) <= 1e4 && std::abs(s.matrix[1]) <= 1e4 && std::abs(s.matrix[3]) <= 1e4 &&
                 std::abs(s.matrix[4]) <= 1e4,
             Fault::argument, "plan: the matrix of a further step has factors above 1e4, or moves by more than 1e6");
    PL_CHECK(s.resample == 0 || s.resample == 2 || s.resample == 3, Fault::argument,
             "plan: resample is %d, want 0 (nearest), 2 (bilinear) or 3 (bicubic)", s.resample);
  }
}

}  // namespace pass_loader
