// Decodes records of the codec "dct" and JPEGs with entry points, in their form for a GPU, to planar RGB in device
// memory: dct_rows.h, scan.h, idct.h, colour.h. The bytes are the CPU's. This needs no header of CUDA.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cuda/gpu.h"
#include "gpu_form.h"

namespace pass_loader::cuda {

// A record's form and the layout of its RGB, three planes.
struct CodedFile {
  const GpuForm* form;               // on the host
  const uint8_t* there;              // on the device, a copy of all of the form: a multiple of GpuForm::kAlign
  int64_t row_stride, plane_stride;  // bytes, multiples of 16; rows have room for a multiple of 4 pixels
};

// A decoder may be used by one thread at a time. It holds pinned memory for tables, which it allocates only if a group
// needs more than those before; the steady state allocates nothing. The workspace is the caller's.
class ExactDecoder {
 public:
  static constexpr int kSlots = 4;            // groups whose tables may be on their way
  static constexpr size_t kMostFiles = 1024;  // of a group

  // group_bytes: the limit of a group's workspace.
  ExactDecoder(std::unique_ptr<Gpu> gpu, size_t group_bytes);
  ~ExactDecoder();
  ExactDecoder(const ExactDecoder&) = delete;

  // Puts the records into groups, in their order. One that alone needs more than group_bytes is in none. The groups are
  // valid until the next `sort`; the forms on the host are not read after it.
  std::span<const PicturePlace> sort(std::span<const CodedFile> files);
  int32_t groups() const { return static_cast<int32_t>(groups_.size()); }
  size_t workspace_bytes() const { return workspace_bytes_; }  // of the largest group

  // Queues the decoding of a group to `workspace`: device memory, a multiple of 256, of workspace_bytes. verdicts: a
  // number for each sorted record, on the device, 0 before; not 0 where the record is not sound: its pixels are then
  // anything, and the CPU says what is wrong. Until the stream has reached this point the forms on the device must not
  // change, and neither workspace nor verdicts be used. Waits on the host only if kSlots groups are queued and none has
  // begun.
  void decode(int32_t group, uint8_t* workspace, int32_t* verdicts, void* stream);

  size_t pinned_bytes() const;

 private:
  struct Slot {
    uint8_t* staged = nullptr;  // pinned: tables to be copied
    size_t bytes = 0;
    int event = -1;
  };
  struct Picture {
    CodedFile file;
    int32_t number;  // among the sorted records
    bool is_dct;
    int32_t components, blocks, rgb_tiles;
    int32_t rows;                             // of blocks, of a JPEG of MCUs
    int64_t blocks_at, planes_at[3], rgb_at;  // in the workspace; blocks_at: places or coefficients
    Components shape;                         // decode sets planes and rgb
  };
  struct Tables {
    size_t components, tiles[5], bytes;  // places, and all of it
    int32_t counts[5];                   // of tiles, in Decoding's order
  };
  struct Group {
    size_t begin, end;  // of pictures_
    int64_t used;       // bytes of the workspace before the tables
    Tables tables;
  };

  static Picture describe(const CodedFile& file, int32_t number);
  static int64_t place(Picture& picture, int64_t begin);
  static Tables lay_out(std::span<const Picture> pictures);
  Slot& need_slot(size_t bytes);

  std::unique_ptr<Gpu> gpu_;
  const size_t group_bytes_;
  Slot slots_[kSlots];
  int next_slot_ = 0;
  std::vector<Picture> pictures_;  // the groups', in order
  std::vector<PicturePlace> places_;
  std::vector<Group> groups_;
  size_t workspace_bytes_ = 0;
};

}  // namespace pass_loader::cuda
