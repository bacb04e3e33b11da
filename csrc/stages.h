// Where the time goes: nanoseconds for each stage, and samples. Each thread adds up its own; the reader sums over
// threads.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace pass_loader {

// The stages in the order in which a sample goes through them. Python uses the same names.
#define PL_STAGES(stage)                                                                                      \
  stage(read) stage(decode) stage(plan) stage(resize) stage(brightness_contrast) stage(saturation) stage(hue) \
      stage(grayscale) stage(blur) stage(solarize) stage(further) stage(normalize) stage(heatmap)

#define PL_ENUMERATOR(name) name,
#define PL_NAME(name) #name,
enum class Stage : size_t { PL_STAGES(PL_ENUMERATOR) };
inline constexpr const char* kStageNames[] = {PL_STAGES(PL_NAME)};
#undef PL_ENUMERATOR
#undef PL_NAME
constexpr size_t kStages = std::size(kStageNames);

struct StageTotals {
  std::array<uint64_t, kStages> ns{};
  uint64_t samples = 0;  // rendered without a failure
};

// The times of one thread. Only that thread writes, so an addition is a plain load and store; others may read at any
// time. They are aligned to 128 bytes because processors fetch cache lines in pairs.
class alignas(128) StageTimes {
 public:
  void add(Stage stage, uint64_t ns) { add(ns_[static_cast<size_t>(stage)], ns); }
  void add_sample() { add(samples_, 1); }

  void sum_into(StageTotals& totals) const {
    for (size_t i = 0; i < kStages; ++i) totals.ns[i] += ns_[i].load(std::memory_order_relaxed);
    totals.samples += samples_.load(std::memory_order_relaxed);
  }

 private:
  static void add(std::atomic<uint64_t>& counter, uint64_t more) {
    counter.store(counter.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }

  std::array<std::atomic<uint64_t>, kStages> ns_{};
  std::atomic<uint64_t> samples_{0};
};

// A stopwatch that never stops: `charge` adds the time since the last charge to a stage. It costs one reading of the
// clock, about 20 ns, for each stage and view.
class StageClock {
 public:
  explicit StageClock(StageTimes& times) : times_(times), last_(std::chrono::steady_clock::now()) {}

  void charge(Stage stage) {
    auto now = std::chrono::steady_clock::now();
    times_.add(stage, static_cast<uint64_t>(std::chrono::nanoseconds(now - last_).count()));
    last_ = now;
  }

 private:
  StageTimes& times_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace pass_loader
