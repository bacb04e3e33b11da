// Samples decoded and rendered straight into the batch that Python sees.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "draws.h"
#include "engine.h"
#include "image.h"
#include "plan.h"
#include "pool.h"
#include "stages.h"

namespace pass_loader {

// Where the samples of one view are written. The memory is borrowed.
struct Output {
  uint8_t* memory;
  size_t stride;  // bytes from one sample to the next: a sample's size, or more if other views lie in between

  uint8_t* slot(int64_t number) const { return memory + stride * static_cast<size_t>(number); }
};

// A picture that stands in for the original in one view of a sample.
struct Companion {
  int64_t record;
  int32_t view;  // -1: there is none
};

struct RenderRequest {
  std::vector<SampleKey> samples;
  std::vector<Output> views;             // one a view, in the form of the engine's normalizations
  PlanRows plans;                        // (samples, views)
  std::vector<uint16_t> sources;         // one a sample: which of the engine's normalizations; empty: always the first
  std::vector<Companion> companions;     // one a sample, or empty; empty if there are heatmaps
  std::vector<int64_t> heatmap_records;  // one a sample, of the engine's reader of heatmaps; empty: no heatmaps
  std::vector<Output> heatmaps;          // one a view, (samples, out_height, out_width) float32; empty: no heatmaps
  Announced announced;                   // by slots
};

// The slots of a sample that fails hold zeros, its plans too.
class RenderBatch final : public Batch {
 public:
  // The engine must outlive the batch's time in its pool.
  RenderBatch(const Engine& engine, RenderRequest request);

 private:
  void make(int64_t slot, size_t worker) override;
  void clear(int64_t slot) override;

  // Each returns the pixels of the largest picture that it has decoded.
  int64_t render_sample(int64_t slot, WorkingMemory& memory, StageClock& clock) const;
  int64_t render_original(int64_t slot, int32_t without_view, WorkingMemory& memory, StageClock& clock) const;
  int64_t render_companion(int64_t slot, WorkingMemory& memory, StageClock& clock) const;

  // plan(height, width) plans the views, and returns the window that holds all their crop boxes.
  template <typename Plan>
  ConstPlanes decode(int64_t record, const ReadAhead::Loan& ahead, const Plan& plan, WorkingMemory& memory,
                     StageClock& clock) const;
  std::span<StepPlan> steps_of(size_t view, WorkingMemory& memory) const;
  void render_view(int64_t slot, size_t view, const ConstPlanes& picture, WorkingMemory& memory,
                   StageClock& clock) const;
  void render_heatmaps(int64_t slot, int32_t height, int32_t width, WorkingMemory& memory) const;

  const Engine& engine_;
  const Setup& setup_;
  const RenderRequest request_;
};

}  // namespace pass_loader
