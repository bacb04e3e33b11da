// A picture as a GPU takes it to decode: jpeg/forms.h writes it, cuda/ reads it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "host_device.h"

namespace pass_loader {

// It begins a piece of memory, at a multiple of kAlign. All places are bytes from its begin, and multiples of kAlign.
struct GpuForm {
  static constexpr size_t kAlign = 16;
  static constexpr int kMostComponents = 3, kBlockValues = 64;
  enum class Kind : int32_t { dct, scan };

  struct Component {
    int32_t height, width;  // samples
    int32_t rows, columns;  // of blocks
    int16_t quantization[kBlockValues];
  };

  Kind kind;
  int32_t height, width;
  int32_t components;  // 1: gray; 3: YCbCr, of which the first has the picture's size and the others have one of theirs
  int32_t wide, tall;  // pixels for each sample of colour: 1 or 2
  Component of[kMostComponents];

  PL_BOTH int32_t rows() const {
    int32_t sum = 0;
    for (int c = 0; c < components; ++c) sum += of[c].rows;
    return sum;
  }
  PL_BOTH int32_t blocks() const {
    int32_t sum = 0;
    for (int c = 0; c < components; ++c) sum += of[c].rows * of[c].columns;
    return sum;
  }
  PL_BOTH const uint8_t* at(uint32_t place) const { return reinterpret_cast<const uint8_t*>(this) + place; }
};

// A record of the codec "dct". Behind it lie a RowPlaces for each block row and one for their end, and then the
// record's streams without zstd's layer (docs/dct-codec.md). kPadding readable bytes follow each stream.
struct DctForm : GpuForm {
  static constexpr size_t kPadding = 16;
  enum Stream { kFlags, kDc, kMasks, kSigns, kLarger, kNibbles, kBytes, kDcWide, kWideSizes, kStreams };

  uint32_t rows_at;
  uint32_t streams_at[kStreams];

  PL_BOTH const uint8_t* stream(Stream kind) const { return at(streams_at[kind]); }
};

// Where a block row's part of each stream begins, in bytes from the stream's begin. It ends where the next row's
// begins.
struct RowPlaces {
  uint32_t masks, bits, nibbles, bytes, dc_wide, wide;  // bits: of signs, and of larger
};

// A JPEG of one baseline scan, with entry points. Behind it lie a ScanPoint for each row of MCUs and all bytes of the
// file after the scan's header.
struct ScanForm : GpuForm {
  // A canonical code (T.81 F.2.2.3).
  struct Huffman {
    static constexpr int kLookup = 9;
    uint16_t lookup[1 << kLookup];  // by the next bits: length << 8 | symbol; 0: a longer code, or none
    int32_t limits[17];             // [n]: the first code of n bits that is too large, left-aligned in 16 bits
    int32_t offsets[17];
    uint8_t symbols[256];
  };

  int32_t mcu_rows, mcu_columns;
  int32_t horizontal[kMostComponents], vertical[kMostComponents];  // sampling factors
  uint32_t points_at, entropy_at, entropy_bytes;
  uint8_t zigzag[kBlockValues];  // the row-major index of the k-th coefficient
  Huffman dc[2], ac[2];          // of the first component, and of the others
};

struct ScanPoint {
  uint32_t bit;  // from entropy_at, stuffed zeros counted
  int16_t dc[3];
  int16_t unused;
};
static_assert(std::is_trivially_copyable_v<DctForm> && std::is_trivially_copyable_v<ScanForm>);

}  // namespace pass_loader
