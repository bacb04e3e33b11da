// A batch as the kernels see it: tables of numbers, without pointers to host memory, which the host makes from plans.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "blur_weights.h"
#include "plan.h"

namespace pass_loader::cuda {

// A decoded picture in device memory: 8-bit RGB, three planes.
struct Picture {
  const uint8_t* pixels;
  int64_t height, width;
  int64_t row_stride, plane_stride;  // bytes
};

// One view to render. `out` is device memory for one sample of the view: contiguous elements as the form says.
struct Job {
  ViewPlan plan;
  int32_t picture;  // index
  void* out;
};

// The form of all outputs: elements of 4, 2 or 1 bytes, (3, height, width) or with channels_last (height, width, 3).
struct Form {
  int32_t element_bytes;
  bool channels_last;
};

// One axis of a resize. Its table begins at the 32-bit word `table`: the first input of each output, the count of
// inputs, then weights as [tap][output], so that neighbouring threads read neighbouring words.
struct Axis {
  int64_t table;
  int32_t in_size, resize_size, offset, out_size;
  uint8_t interpolation;
  bool reversed;
};

// One resize: the first pass goes from `source` to `between`, the second one to `out`. Places are bytes from
// Batch::pixels. Our own planes follow one another without gaps.
struct Resize {
  const uint8_t* source;  // the crop's corner in the first plane; null: the source is in the workspace, at source_at
  int64_t source_at, source_row, source_plane;
  int64_t between, out;
  Axis horizontal, vertical;
  int32_t between_height, between_width, between_row;
  int32_t begin;  // the first input that the second pass uses: `between` begins with it
  int32_t out_row;
  bool vertical_first;
};

enum class Blur : uint8_t { none, box, kernel };

// One view after its resize. Both have the same number.
struct View {
  int64_t pixels;  // its place, as Resize::out
  void* out;
  int32_t height, width, row;
  float factor[3];  // brightness, contrast, saturation
  int8_t steps[4];
  // Contrast and the steps after it wait for the view's mean. Without contrast all steps run at once.
  int8_t step_count, contrast_at;
  uint8_t hue_shift;
  bool grayscale;
  int16_t solarize_threshold;  // 256: none
  Blur blur;
  bool aligned;  // the addresses of groups of four elements are multiples of the groups' size
  Box box;
  int32_t taps, taps_at;               // a kernel blur's taps: floats from Batch::taps
  int32_t across_lines, down_columns;  // what a block takes in a box blur
};

// The work of one block: part number `part` of a resize or a view.
struct Tile {
  int32_t item, part;
};
struct Tiles {
  const Tile* tiles;
  int32_t count;
};

// Everything that a kernel gets.
struct Batch {
  const Resize* resizes;  // the views' own, then the first of two resizes (via)
  const View* views;
  int32_t view_count;
  Form form;
  const float* taps;
  const uint32_t* normalize_table;  // [channel][byte]: an element's bits
  uint8_t* pixels;
  int32_t* tables;
  unsigned long long* luma_sums;  // one for each view
  Tiles weights, via_first, via_second, first, second, across, down, kernel;
};
static_assert(std::is_trivially_copyable_v<Resize> && std::is_trivially_copyable_v<View>);

constexpr int kThreads = 256;          // of a block
constexpr int kGroup = 4;              // neighbouring pixels that a thread works on
constexpr int kGroupsPerTile = 768;    // 3 for each thread; a view of 96 x 96 is 3 whole tiles
constexpr int kLinesPerTile = 64;      // 8 for each warp; a line is a row of a plane
constexpr int kOutputsPerTile = 256;   // weights
constexpr int kLineBytes = kMaxOutPx;  // bytes of the lines that a block takes in a box blur

// Makes batches for the device. It keeps its memory, so that the steady state allocates nothing.
class Packing {
 public:
  // Takes jobs from the front until their workspace would exceed `budget` bytes, but always one. Returns how many it
  // took. guard: bytes left free between the pieces of Batch::pixels, for tests. Throws Error(argument) for a plan that
  // cannot be executed on its picture, and for a bad picture or output.
  size_t pack(std::span<const Picture> pictures, std::span<const Job> jobs, const Form& form, size_t budget,
              size_t guard = 0);

  size_t table_bytes() const;      // what `write` writes
  size_t workspace_bytes() const;  // what the kernels write in between
  void write(void* tables) const;
  // Returns the batch whose tables are at `tables` and whose workspace begins at `workspace`, both multiples of kAlign.
  Batch batch(const void* tables, void* workspace, const uint32_t* normalize_table) const;

  static constexpr size_t kAlign = 256;

 private:
  void add(const Job& job, Resize& last, Resize* via);
  void place(Resize& resize);
  void add_blur(const ViewPlan& plan, View& view, int32_t item);

  Form form_{};
  int64_t guard_ = 0, pixels_ = 0, words_ = 0;  // places used so far: bytes of pixels, words of tables
  std::vector<Resize> resizes_, vias_;
  std::vector<View> views_;
  std::vector<float> taps_;
  std::vector<Tile> weights_, via_weights_, via_first_, via_second_, first_, second_, across_, down_, kernel_;
};

}  // namespace pass_loader::cuda
