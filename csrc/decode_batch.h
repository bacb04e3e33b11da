// Samples decoded and planned into an arena of memory, for a GPU to render.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "draws.h"
#include "engine.h"
#include "plan.h"
#include "pool.h"
#include "stages.h"

namespace pass_loader {

// What the arena may hold of a picture.
enum class Held : int64_t {
  pixels,
  file,  // a plain JPEG as it is; else pixels
  form,  // for a GPU (gpu_form.h), if GPUs take it: of records of the codec "dct", and JPEGs with entry points
};

// A decoded picture in an arena: three planes of 8-bit RGB. Or its file or form, and how its planes would lie. All
// zeros: the sample has failed.
struct ArenaPicture {
  int64_t offset;  // bytes from the arena's begin; -1: the arena had no room for the picture, which was not decoded
  int64_t height, width;
  int64_t row_stride, plane_stride;  // bytes
};
static_assert(std::is_trivially_copyable_v<ArenaPicture>);

struct DecodeRequest {
  std::vector<SampleKey> samples;
  uint8_t* arena;  // borrowed, as all below
  size_t arena_bytes;
  ArenaPicture* pictures;  // (samples,)
  ViewPlan* plans;         // (samples, views); not written where the arena had no room
  // (samples,), or null: pixels are wanted. Before: a Held each. After: the bytes of the file or form that a GPU is to
  // decode; 0 if the arena holds pixels, or the sample has failed.
  int64_t* files = nullptr;
  Announced announced;  // by slots
};

class DecodeBatch final : public Batch {
 public:
  // The engine must outlive the batch's time in its pool.
  DecodeBatch(const Engine& engine, DecodeRequest request);

 private:
  void make(int64_t slot, size_t worker) override;
  void clear(int64_t slot) override;

  int64_t decode_sample(int64_t slot, WorkingMemory& memory, StageClock& clock);
  ArenaPicture place(int32_t height, int32_t width, size_t file);

  const Engine& engine_;
  const Setup& setup_;
  const DecodeRequest request_;
  std::atomic<size_t> arena_used_{0};
};

}  // namespace pass_loader
