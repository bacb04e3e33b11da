// What decoders need from a GPU. gpu.cu has the real one; the tests have one whose queue the CPU executes late.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "cuda/colour.h"
#include "cuda/dct_rows.h"

namespace pass_loader::cuda {

// Streams are cudaStream_t. All throw Error(device).
class Gpu {
 public:
  virtual ~Gpu() = default;
  // Makes the GPU the thread's current one until leave. Returns false if CUDA is gone, at the end of the process.
  virtual bool enter() = 0;
  virtual void leave() = 0;
  // Allocates on the device, or pinned memory on the host. Returns null if none is left. May be called by any thread.
  virtual void* allocate(size_t bytes, bool pinned) = 0;
  virtual void release(void* memory, bool pinned) = 0;
  virtual void copy(void* to, const void* from, size_t bytes, void* stream) = 0;  // from pinned memory to the device
  virtual void convert(const Conversion& conversion, void* stream) = 0;
  virtual void decode(const Decoding& decoding, void* stream) = 0;
  virtual int make_event() = 0;  // returns a number, from 0
  virtual void record(int event, void* stream) = 0;
  virtual void wait(int event) = 0;  // the host waits until the last record has been reached
};

// Makes the device the current one as long as it lives. False if CUDA is gone.
class Inside {
 public:
  explicit Inside(Gpu& gpu) : gpu_(gpu), entered_(gpu.enter()) {}
  ~Inside() {
    if (entered_) gpu_.leave();
  }
  Inside(const Inside&) = delete;
  explicit operator bool() const { return entered_; }

 private:
  Gpu& gpu_;
  const bool entered_;
};

constexpr size_t kPieceAlign = 256;  // bytes: of all that a decoder puts into device memory

// Returns how many b it takes to hold a.
constexpr int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

// Where a decoder puts a picture.
struct PicturePlace {
  int32_t group;   // pictures that are decoded together; -1: not decoded here
  int64_t offset;  // its RGB's place: bytes from the begin of the group's memory, a multiple of kPieceAlign
};

// Returns how many of ToRgb's tiles a picture has.
inline int32_t rgb_tiles_of(int32_t height, int32_t width) {
  const int64_t groups = int64_t{divide_up(width, kGroup)} * height;
  return static_cast<int32_t>((groups + kGroupsPerTile - 1) / kGroupsPerTile);
}

// Returns a real GPU. device: its index. Throws Error(device) with unavailable()'s message, or Error(argument) if there
// is no such device.
std::unique_ptr<Gpu> make_gpu(int device);

}  // namespace pass_loader::cuda
