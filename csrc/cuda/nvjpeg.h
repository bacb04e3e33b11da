// JPEG files in pinned memory to planar RGB in device memory: Huffman codes and inverse DCT by NVIDIA's nvJPEG, opened
// at run time; upsampling and colour by colour.h. No header of CUDA or nvJPEG is needed here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cuda/colour.h"
#include "cuda/nvjpeg_api.h"

namespace pass_loader::cuda {

// What decoding asks of a GPU. gpu.cu has the real one; tests have one whose queue the CPU executes late. Streams are
// cudaStream_t. Throws Error(device).
class Gpu {
 public:
  virtual ~Gpu() = default;
  // Until leave, the GPU is the thread's current one. False where CUDA is gone, at the process's end.
  virtual bool enter() = 0;
  virtual void leave() = 0;
  // Of the device, or pinned on the host; null where none is left. Any thread.
  virtual void* allocate(size_t bytes, bool pinned) = 0;
  virtual void release(void* memory, bool pinned) = 0;
  virtual void copy(void* to, const void* from, size_t bytes, void* stream) = 0;  // from pinned memory to the device
  virtual void convert(const Conversion& conversion, void* stream) = 0;
  virtual int make_event() = 0;  // numbers from 0 on
  virtual void record(int event, void* stream) = 0;
  virtual void wait(int event) = 0;  // on the host, until what was recorded last has come
};

// Memory that nvJPEG takes for itself, within a limit: beyond it nvJPEG is refused, and fails.
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
  mutable std::mutex mutex_;  // the hardware's driver has threads of its own
  std::map<void*, size_t> taken_;
  size_t used_ = 0;
};

// A file, and the form of its RGB: three planes.
struct JpegFile {
  const uint8_t* bytes;  // pinned
  size_t length;
  int32_t height, width;
  int64_t row_stride, plane_stride;  // bytes, multiples of 16; rows hold a whole multiple of 4
};

struct JpegPlace {
  int32_t group;   // -1: left to others
  int64_t offset;  // of its RGB, bytes from the group's begin; a multiple of 256
};

// Belongs to one thread at a time.
//
// nvJPEG's hardware path writes when it is called, whatever is queued before (meta-pytorch/torchcodec#1634). So it
// writes into slots of ours alone, and the host waits for the last reader of a slot before the next call that writes
// there; with three of them that one is usually done. A slot has an nvJPEG state of its own: that too is in use for as
// long.
class JpegDecoder {
 public:
  static constexpr int kSlots = 3;
  static constexpr size_t kMostFiles = 1024;  // of a group

  // library: of nvJPEG, as dlopen takes it. slot_bytes: of device memory, a slot, and of the RGB of a group. nvJPEG
  // itself is given up to 8 times as much, or 256 MiB. Throws Error(device): no library, no memory, nvJPEG refuses.
  JpegDecoder(std::unique_ptr<Gpu> gpu, const std::string& library, size_t slot_bytes);
  ~JpegDecoder();
  JpegDecoder(const JpegDecoder&) = delete;

  // Puts files into groups, in their order, each within slot_bytes; asks nvJPEG which ones it takes. The next `sort`
  // ends the groups of this one; files must stay until then.
  std::span<const JpegPlace> sort(std::span<const JpegFile> files);
  int32_t groups() const { return groups_; }

  // Queues a group's pictures, into `rgb`, a multiple of 256. Waits on the host as said above. Files must stay as they
  // are, and rgb be left alone, until the stream has come so far. False: nvJPEG has failed, and rgb is undefined.
  bool decode(int32_t group, uint8_t* rgb, void* stream);

  bool has_engine() const { return reason_.empty(); }
  const std::string& reason() const { return reason_; }  // why no hardware decodes, with the remedy; empty: it does
  unsigned engines() const { return engines_; }          // of the hardware; 0 where it does not decode
  unsigned cores() const { return cores_; }              // of an engine
  const std::string& version() const { return version_; }
  const std::string& last_failure() const { return last_failure_; }  // of decode; empty: none so far
  size_t device_bytes() const;
  size_t pinned_bytes() const;

 private:
  struct Slot {
    uint8_t* planes = nullptr;  // device
    uint8_t* tables = nullptr;  // device
    uint8_t* staged = nullptr;  // pinned: tables on their way
    nvjpeg::State state = nullptr;
    int event = -1;
  };
  struct Picture {
    JpegFile file;
    Components components;  // planes and rgb are set by write_tables
    size_t plane_at[3];     // in a slot
    int64_t rgb_at;         // in the group's RGB
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
  std::vector<Picture> pictures_;  // those of groups, in order
  std::vector<JpegPlace> places_;
  std::vector<size_t> begins_;  // of each group in pictures_, and the end
  int32_t groups_ = 0;
  std::vector<const uint8_t*> data_;  // of a call
  std::vector<size_t> lengths_;
  std::vector<nvjpeg::Image> images_;
};

}  // namespace pass_loader::cuda
