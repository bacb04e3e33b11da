#include "cpu/erase.h"

#include <algorithm>
#include <cstring>

#include "cpu/halves.h"
#include "portable_math.h"
#include "rng.h"

namespace pass_loader::cpu {
namespace {

constexpr uint32_t kNoise = 0x45524153;  // keeps the counters apart from those of plans

// Normal numbers by their place in the rectangle: channel by channel, row by row.
class Noise {
 public:
  explicit Noise(const StepPlan& step)
      : key_(static_cast<uint64_t>(step.matrix[4]) << 32 | static_cast<uint64_t>(step.matrix[5])) {}

  float at(uint64_t place) {
    if (place / 2 != block_) {
      block_ = place / 2;
      words_ = philox({static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32), 0, kNoise}, key_);
    }
    const size_t pair = place % 2 * 2;
    return static_cast<float>(normal_quantile(std::max(unit(words_[pair], words_[pair + 1]), 0x1p-54)));
  }

 private:
  uint64_t key_, block_ = UINT64_MAX;
  Words words_{};
};

void store(float value, Element element, void* out, size_t at) {
  if (element == Element::float32) static_cast<float*>(out)[at] = value;
  if (element == Element::float16) static_cast<uint16_t*>(out)[at] = to_float16(value);
  if (element == Element::bfloat16) static_cast<uint16_t*>(out)[at] = to_bfloat16(value);
}

void erase_one(const StepPlan& step, const OutputForm& form, int32_t height, int32_t width, void* out) {
  const auto channels = static_cast<size_t>(form.channels);
  const auto left = static_cast<size_t>(step.matrix[0]), top = static_cast<size_t>(step.matrix[1]);
  const auto wide = static_cast<size_t>(step.matrix[2]), tall = static_cast<size_t>(step.matrix[3]);
  const size_t apart = form.channels_last ? 1 : static_cast<size_t>(height) * static_cast<size_t>(width);
  const size_t next = form.channels_last ? channels : 1;
  const bool noisy = static_cast<EraseMode>(step.level) == EraseMode::noise;
  Noise noise(step);
  uint64_t place = 0;
  for (size_t c = 0; c < channels; ++c) {
    const auto value = static_cast<float>(step.matrix[4 + c]);
    for (size_t y = top; y < top + tall; ++y)
      for (size_t x = left; x < left + wide; ++x)
        store(noisy ? noise.at(place++) : value, form.element, out,
              c * apart + (y * static_cast<size_t>(width) + x) * next);
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
