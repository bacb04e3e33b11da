#include "cpu/erase.h"

#include <algorithm>
#include <cstring>

#include "cpu/halves.h"
#include "cpu/noise.h"

namespace pass_loader::cpu {
namespace {

// Normal numbers in the order of their places: channel by channel, row by row.
class Noise {
 public:
  explicit Noise(const StepPlan& step)
      : key_(static_cast<uint64_t>(step.matrix[4]) << 32 | static_cast<uint64_t>(step.matrix[5])) {}

  // Returns the next numbers, `count` of them at most.
  std::span<const float> next(size_t count) {
    if (used_ == kNoiseRun) noise_run(key_, run_++, values_), used_ = 0;
    const std::span<const float> found(values_ + used_, std::min(count, kNoiseRun - used_));
    used_ += found.size();
    return found;
  }

 private:
  uint64_t key_, run_ = 0;
  size_t used_ = kNoiseRun;
  float values_[kNoiseRun];
};

// Stores values `next` elements apart.
void store(std::span<const float> values, Element element, void* out, size_t at, size_t next) {
  for (size_t i = 0; i < values.size(); ++i, at += next) {
    if (element == Element::float32) static_cast<float*>(out)[at] = values[i];
    if (element == Element::float16) static_cast<uint16_t*>(out)[at] = to_float16(values[i]);
    if (element == Element::bfloat16) static_cast<uint16_t*>(out)[at] = to_bfloat16(values[i]);
  }
}

void erase_one(const StepPlan& step, const OutputForm& form, int32_t height, int32_t width, void* out) {
  const auto channels = static_cast<size_t>(form.channels);
  const auto left = static_cast<size_t>(step.matrix[0]), top = static_cast<size_t>(step.matrix[1]);
  const auto wide = static_cast<size_t>(step.matrix[2]), tall = static_cast<size_t>(step.matrix[3]);
  const size_t apart = form.channels_last ? 1 : static_cast<size_t>(height) * static_cast<size_t>(width);
  const size_t next = form.channels_last ? channels : 1;
  const bool noisy = static_cast<EraseMode>(step.level) == EraseMode::noise;
  Noise noise(step);
  float same[kNoiseRun];
  for (size_t c = 0; c < channels; ++c) {
    std::fill(std::begin(same), std::end(same), static_cast<float>(step.matrix[4 + c]));
    for (size_t y = top; y < top + tall; ++y)
      for (size_t x = 0; x < wide;) {
        const std::span<const float> values =
            noisy ? noise.next(wide - x) : std::span<const float>(same, std::min(wide - x, kNoiseRun));
        store(values, form.element, out, c * apart + (y * static_cast<size_t>(width) + left + x) * next, next);
        x += values.size();
      }
  }
}

}  // namespace

void erase(std::span<const StepPlan> steps, const OutputForm& form, int32_t height, int32_t width, void* out) {
  for (const StepPlan& step : steps) {
    if (step.op == StepOp::none) return;
    if (step.op == StepOp::erase) erase_one(step, form, height, width, out);
  }
}

}  // namespace pass_loader::cpu
