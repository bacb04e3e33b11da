// Threads and the queue of batches: the only file with threads. A batch is handed over in the order it was submitted,
// written in place into memory that the caller owns.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "cpu/nearest.h"
#include "cpu/normalize.h"
#include "cpu/render.h"
#include "error.h"
#include "plan.h"
#include "shard.h"
#include "stages.h"

namespace pass_loader {

struct Failure {
  int64_t slot;  // which sample of the batch
  Fault fault;
  std::string message;
};

// Where a view's samples are written: borrowed, each in the form that the Normalization says.
struct Output {
  uint8_t* memory;
  size_t stride;  // bytes from one sample to the next: a sample's own, or more where views lie between one another
};

// A picture that stands in for the original in one view of a sample.
struct Companion {
  int64_t record;
  int32_t view;  // -1: there is none
};

// A decoded picture in a batch's arena: three planes of 8-bit RGB; or its file, and how its planes would lie. Nothing
// but zeros: the sample failed.
struct ArenaPicture {
  int64_t offset;  // bytes from the arena's begin; -1: the arena had no room for it, and it was not decoded
  int64_t height, width;
  int64_t row_stride, plane_stride;  // bytes

  int64_t bytes() const { return 3 * plane_stride; }
};
static_assert(std::is_trivially_copyable_v<ArenaPicture>);

// One step's work. The vectors are filled before submit and not touched until it is done.
struct Batch {
  std::vector<int64_t> records;
  std::vector<uint32_t> draws;           // one a record
  std::vector<uint32_t> epochs;          // one a record
  std::vector<uint16_t> sources;         // one a record: which of the engine's normalizations; empty: all the first
  std::vector<Companion> companions;     // one a record, or none at all; none where there are heatmaps
  std::vector<Output> views;             // one a view
  std::vector<int64_t> heatmap_records;  // one a record, of the engine's second reader; empty: none are wanted
  std::vector<Output> heatmaps;          // one a view, (N, out_height, out_width) float32; empty: none are wanted
  ViewPlan* plans = nullptr;             // borrowed (N, views) or null
  uint8_t* arena = nullptr;  // borrowed; pictures are decoded and planned, and go there; null: views are rendered
  size_t arena_bytes = 0;
  ArenaPicture* pictures = nullptr;  // borrowed (N,); with an arena
  // Borrowed (N,) or null; with an arena. In: 0 where pixels are wanted, else a plain JPEG may go into the arena as it
  // is, for a GPU to decode. Out: its bytes; 0: pixels, or failed.
  int64_t* files = nullptr;
  std::vector<Failure> failures;  // complete once the batch is done; a failed sample's slots hold zeros

 private:
  friend class Engine;
  std::atomic<int64_t> next{0};  // the sample to be taken next
  std::atomic<int64_t> done{0};
  std::atomic<size_t> arena_used{0};
  std::mutex mutex;
  std::condition_variable finished;
};

class Engine {
 public:
  // normalizations: one a source, at least one, of one form. Where it has one channel, pictures become gray when they
  // are decoded. threads == 0: samples are rendered by whoever waits. The recipe is checked. cpus: thread i runs on
  // cpus[i % size] alone; empty: anywhere. heatmaps: where a batch's heatmap_records are read; null: no batch has any.
  Engine(std::shared_ptr<const ShardReader> reader, std::vector<ViewSpec> recipe, uint64_t seed,
         std::vector<cpu::Normalization> normalizations, int threads, const std::vector<int>& cpus,
         std::shared_ptr<const ShardReader> heatmaps = nullptr);
  ~Engine();  // prompt: threads finish the sample at hand
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const std::vector<ViewSpec>& recipe() const;
  const cpu::OutputForm& form() const;
  size_t sources() const;
  bool has_heatmaps() const;

  void submit(std::shared_ptr<Batch> batch);

  // True when the batch is done; false when the time has passed first.
  bool wait(Batch& batch, std::chrono::milliseconds timeout);

  static bool is_done(const Batch& batch);

  // Hands out no further sample of the batch and returns when nobody writes to its memory any more.
  void cancel(Batch& batch);

  // Summed over the threads since the engine was made; read while they work.
  StageTotals stage_times() const;

 private:
  struct WorkingMemory;
  struct Worker;
  struct State;

  void run(Worker& worker);
  void start(int threads, const std::vector<int>& cpus);
  void stop();
  void render(Batch& batch, int64_t slot, Worker& worker) const;
  int64_t render_sample(Batch& batch, int64_t slot, Worker& worker) const;  // returns the largest picture's pixels
  int64_t decode_sample(Batch& batch, int64_t slot, Worker& worker) const;
  ConstPlanes picture_of(int64_t record, WorkingMemory& memory, StageClock& clock) const;
  int64_t render_original(Batch& batch, int64_t slot, Worker& worker, int32_t but, StageClock& clock) const;
  int64_t render_companion(Batch& batch, int64_t slot, Worker& worker, const Companion& from, StageClock& clock) const;
  void render_view(Batch& batch, int64_t slot, size_t view, const ConstPlanes& picture, WorkingMemory& memory,
                   StageClock& clock) const;
  void render_heatmaps(Batch& batch, int64_t slot, Worker& worker, int32_t height, int32_t width) const;
  size_t sample_bytes(size_t view) const;
  size_t heatmap_bytes(size_t view) const;
  static void finish(Batch& batch, int64_t samples);
  bool in_owner_process() const;
  void check_owner() const;

  std::unique_ptr<State> state_;
};

}  // namespace pass_loader
