// Decodes JPEG files in pinned memory to planar RGB in device memory. Huffman codes and the inverse DCT are done by
// NVIDIA's nvJPEG, which is opened at run time; upsampling and colour by colour.h. This needs no header of CUDA or
// nvJPEG.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cuda/gpu.h"
#include "cuda/nvjpeg_api.h"

namespace pass_loader::cuda {

// Memory that nvJPEG allocates for itself. Beyond a limit it is refused, and nvJPEG fails.
class Budget {
 public:
  Budget(Gpu& gpu, bool pinned, size_t limit) : gpu_(gpu), pinned_(pinned), limit_(limit) {}
  nvjpeg::Allocator allocator();
  size_t used() const;

 private:
  bool take(void** memory, size_t bytes);
  void give(void* memory);

  Gpu& gpu_;
  const bool pinned_;
  const size_t limit_;
  mutable std::mutex mutex_;  // the hardware's driver has its own threads
  std::map<void*, size_t> taken_;
  size_t used_ = 0;
};

// A file and the layout of its RGB, three planes.
struct JpegFile {
  const uint8_t* bytes;  // pinned
  size_t length;
  int32_t height, width;
  int64_t row_stride, plane_stride;  // bytes, multiples of 16; rows have room for a multiple of 4 pixels
};

// A decoder may be used by one thread at a time.
//
// nvJPEG's hardware path writes when it is called, no matter what is queued before (meta-pytorch/torchcodec#1634). So
// it only writes to our own slots, and the host waits for the last reader of a slot before the next call that writes
// there. With three slots that reader is usually done. Each slot has its own nvJPEG state, which is in use for the same
// time.
class JpegDecoder {
 public:
  static constexpr int kSlots = 3;
  static constexpr size_t kMostFiles = 1024;  // of a group

  // library: nvJPEG's name or path for dlopen. slot_bytes: the device memory of a slot, and the limit of a group's RGB.
  // nvJPEG itself may use up to 8 times as much, or 256 MiB. Throws Error(device) if there is no library or no memory,
  // or if nvJPEG refuses.
  JpegDecoder(std::unique_ptr<Gpu> gpu, const std::string& library, size_t slot_bytes);
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;

  // Puts the files that nvJPEG takes into groups, in their order, each within slot_bytes. The groups are valid until
  // the next `sort`, and the files must stay as long.
  std::span<const PicturePlace> sort(std::span<const JpegFile> files);
  int32_t groups() const { return groups_; }

  // Queues the decoding of a group to `rgb`, a multiple of 256. Waits on the host as said above. Until the stream has
  // reached this point, the files must not change and rgb must not be used. Returns false if nvJPEG has failed; rgb is
  // then undefined.
  bool decode(int32_t group, uint8_t* rgb, void* stream);

  bool has_engine() const { return reason_.empty(); }
  const std::string& reason() const { return reason_; }  // why no hardware decodes, and what to do; empty: it does
  unsigned engines() const { return engines_; }          // of the hardware; 0 if it does not decode
  unsigned cores() const { return cores_; }              // of an engine
  const std::string& version() const { return version_; }
  const std::string& last_failure() const { return last_failure_; }  // of decode; empty: there was none
  size_t device_bytes() const;
  size_t pinned_bytes() const;

 private:
  struct Slot {
    uint8_t* planes = nullptr;  // device
    uint8_t* tables = nullptr;  // device
    uint8_t* staged = nullptr;  // pinned: tables to be copied
    nvjpeg::State state = nullptr;
    int event = -1;
  };
  struct Picture {
    JpegFile file;
    Components components;  // write_tables sets planes and rgb
    size_t plane_at[3];     // place in a slot
    int64_t rgb_at;         // place in the group's RGB
  };

  void load(const std::string& library);
  void open();
  void close();
  nvjpeg::Status create(nvjpeg::Backend backend);
  void make_slot(Slot& slot);
  bool describe(const JpegFile& file, Picture* picture, size_t* bytes);
  nvjpeg::Status call(std::span<const Picture> pictures, Slot& slot, void* stream);
  Conversion write_tables(std::span<const Picture> pictures, Slot& slot, uint8_t* rgb, size_t* bytes);
  size_t table_bytes() const;

  std::unique_ptr<Gpu> gpu_;
  size_t slot_bytes_;
  Budget device_, pinned_;
  void* library_ = nullptr;
  nvjpeg::Functions nv_;
  nvjpeg::Allocator device_allocator_{}, pinned_allocator_{};
  nvjpeg::Handle handle_ = nullptr;
  nvjpeg::Stream header_ = nullptr;
  nvjpeg::Params params_ = nullptr;
  std::string reason_, version_, last_failure_;
  unsigned engines_ = 0, cores_ = 0;
  Slot slots_[kSlots];
  int next_slot_ = 0;
  std::vector<Picture> pictures_;  // the groups' pictures, in order
  std::vector<PicturePlace> places_;
  std::vector<size_t> begins_;  // where each group begins in pictures_, and the end
  int32_t groups_ = 0;
  std::vector<const uint8_t*> data_;  // arguments of a call
  std::vector<size_t> lengths_;
  std::vector<nvjpeg::Image> images_;
};

}  // namespace pass_loader::cuda
