// Pictures inside the library: 8-bit RGB in three planes, or gray in one, of 8 or 16 bits. A Scratch owns memory, a
// Planes borrows it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "memory.h"

#ifdef PASS_LOADER_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace pass_loader {

constexpr int64_t kMaxPixels = 178'956'970;  // Pillow's decompression-bomb limit: twice Image.MAX_IMAGE_PIXELS
constexpr int64_t kLargePicturePx = int64_t{1} << 24;  // memory grown for one larger than this is not kept
// What one picture may ask of a thread.
struct Limits {
  int64_t max_pixels = kMaxPixels;
  // Of a JPEG. 0: kMaxScans, and as many as kMaxScannedPixels hold its pixels.
  int max_scans = 0;
};

constexpr size_t kTile = kMemoryAlign;  // bytes: kernels work in tiles and may touch whole tiles at the end of a buffer

inline constexpr size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Bytes that hold so many and the tiles that may be touched past them.
inline constexpr size_t padded_bytes(size_t bytes) { return round_up(bytes, kTile) + 2 * kTile; }

// Memory that grows and never shrinks, so that the steady state allocates nothing. Growing loses the contents. A whole
// tile past the requested count may be read and written.
template <typename T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { release(); }

  void release() {
#ifdef PASS_LOADER_ASAN
    if (memory_ != nullptr) ASAN_UNPOISON_MEMORY_REGION(memory_, bytes_);
#endif
    give_memory_back(memory_, bytes_);
    memory_ = nullptr;
    bytes_ = 0;
  }

  T* need(size_t count) {
    size_t bytes = padded_bytes(count * sizeof(T));
    if (bytes > bytes_) grow(bytes);
#ifdef PASS_LOADER_ASAN  // what was not asked for this time is out of bounds
    ASAN_UNPOISON_MEMORY_REGION(memory_, bytes);
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(memory_) + bytes, bytes_ - bytes);
#endif
    return static_cast<T*>(memory_);
  }

 private:
  void grow(size_t bytes) {
    bytes += bytes / 4;
    release();
    bytes = round_up(bytes, kTile);
    memory_ = take_memory(bytes);
    bytes_ = bytes;
  }

  void* memory_ = nullptr;
  size_t bytes_ = 0;
};

// The pixels of a picture in [top, bottom) x [left, right).
struct Window {
  int32_t top, bottom, left, right;

  static Window whole(int32_t height, int32_t width) { return {0, height, 0, width}; }
};

// Borrowed planes. Plane c begins at pixels + c * plane_stride; rows are row_stride bytes apart.
template <typename Byte>
struct PlanesOf {
  Byte* pixels;
  int32_t height, width;
  size_t row_stride, plane_stride;  // bytes
  int channels = 3;                 // planes: 3, or 1 for gray
  bool deep = false;                // gray of 16 bits, in this machine's byte order

  Byte* row(int plane, int32_t y) const { return pixels + plane * plane_stride + static_cast<size_t>(y) * row_stride; }
  operator PlanesOf<const Byte>() const { return {pixels, height, width, row_stride, plane_stride, channels, deep}; }
};
using Planes = PlanesOf<uint8_t>;
using ConstPlanes = PlanesOf<const uint8_t>;

}  // namespace pass_loader
