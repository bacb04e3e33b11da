#include "cuda/nvjpeg.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include <dlfcn.h>

#include "error.h"
#include "image.h"

namespace pass_loader::cuda {
namespace {

constexpr size_t kRowAlign = 64;  // bytes: a plane's rows
constexpr size_t kMcuPx = 16;     // planes have room for whole MCUs: it is not documented if nvJPEG fills them
constexpr size_t kOwnSlots = 8;   // nvJPEG itself may use the memory of so many slots,
constexpr size_t kOwnLeast = size_t{256} << 20;  // but at least so many bytes, for its tables and the hardware's

const char* name_of(nvjpeg::Status status) {
  static constexpr const char* kNames[] = {"SUCCESS",
                                           "NOT_INITIALIZED",
                                           "INVALID_PARAMETER",
                                           "BAD_JPEG",
                                           "JPEG_NOT_SUPPORTED",
                                           "ALLOCATOR_FAILURE",
                                           "EXECUTION_FAILED",
                                           "ARCH_MISMATCH",
                                           "INTERNAL_ERROR",
                                           "IMPLEMENTATION_NOT_SUPPORTED",
                                           "INCOMPLETE_BITSTREAM"};
  return status >= 0 && status < static_cast<int>(std::size(kNames)) ? kNames[status] : "unknown status";
}

void check(nvjpeg::Status status, const char* doing) {
  PL_CHECK(status == nvjpeg::kSuccess, Fault::device, "nvJPEG, while %s: %s (%d)%s", doing, name_of(status), status,
           status == nvjpeg::kAllocatorFailure ? ": the GPU has too little free memory" : "");
}

}  // namespace

nvjpeg::Allocator Budget::allocator() {
  return {[](void* self, void** memory, size_t bytes, nvjpeg::CudaStream) {
            return static_cast<Budget*>(self)->take(memory, bytes) ? 0 : 1;
          },
          [](void* self, void* memory, size_t, nvjpeg::CudaStream) {
            static_cast<Budget*>(self)->give(memory);
            return 0;
          },
          this};
}

bool Budget::take(void** memory, size_t bytes) {
  const std::lock_guard lock(mutex_);
  *memory = bytes <= limit_ - used_ ? gpu_.allocate(bytes, pinned_) : nullptr;
  if (*memory == nullptr) return false;
  taken_[*memory] = bytes;
  used_ += bytes;
  return true;
}

void Budget::give(void* memory) {
  const std::lock_guard lock(mutex_);
  const auto found = taken_.find(memory);
  if (found == taken_.end()) return;
  used_ -= found->second;
  taken_.erase(found);
  gpu_.release(memory, pinned_);
}

size_t Budget::used() const {
  const std::lock_guard lock(mutex_);
  return used_;
}

JpegDecoder::JpegDecoder(std::unique_ptr<Gpu> gpu, const std::string& library, size_t slot_bytes)
    : gpu_(std::move(gpu)),
      slot_bytes_(round_up(std::max(slot_bytes, kPieceAlign), kPieceAlign)),
      device_(*gpu_, false, std::max(kOwnSlots * slot_bytes_, kOwnLeast)),
      pinned_(*gpu_, true, std::max(kOwnSlots * slot_bytes_, kOwnLeast)) {
  load(library);
  const Inside inside(*gpu_);
  try {
    open();
  } catch (...) {
    close();
    throw;
  }
}

JpegDecoder::~JpegDecoder() {
  const Inside inside(*gpu_);
  if (!inside) return;  // CUDA is gone, and all that belonged to it
  try {
    close();
  } catch (const Error&) {  // the GPU has failed before: nothing can be given back to it
  }
}

// The library is never closed: its threads may live on.
void JpegDecoder::load(const std::string& library) {
  library_ = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library_ == nullptr) {
    const char* error = dlerror();
    fail(Fault::device, "nvJPEG cannot be opened: %s", error == nullptr ? library.c_str() : error);
  }
#define PL_FIND(name, arguments)                                           \
  nv_.name = reinterpret_cast<decltype(nv_.name)>(dlsym(library_, #name)); \
  PL_CHECK(nv_.name != nullptr, Fault::device, "nvJPEG in %s is too old: it has no " #name, library.c_str());
  PL_NVJPEG_FUNCTIONS(PL_FIND)
#undef PL_FIND
  int number[3] = {};
  for (int i = 0; i < 3; ++i) nv_.nvjpegGetProperty(static_cast<nvjpeg::Property>(i), &number[i]);
  char text[64];
  std::snprintf(text, sizeof text, "%d.%d.%d", number[0], number[1], number[2]);
  version_ = text;
}

nvjpeg::Status JpegDecoder::create(nvjpeg::Backend backend) {
  device_allocator_ = device_.allocator(), pinned_allocator_ = pinned_.allocator();
  return nv_.nvjpegCreateExV2(backend, &device_allocator_, &pinned_allocator_, 0, &handle_);
}

void JpegDecoder::open() {
  nvjpeg::Status status = create(nvjpeg::kHardware);
  if (status == nvjpeg::kArchMismatch) {
    reason_ =
        "nvJPEG finds no hardware decoder (ARCH_MISMATCH): this GPU has none, or the container lacks the driver "
        "capability \"video\" (NVIDIA_DRIVER_CAPABILITIES=compute,utility,video); its kernels decode instead";
    status = create(nvjpeg::kGpuHybrid);
  }
  if (status != nvjpeg::kSuccess) handle_ = nullptr;
  check(status, "starting");
  if (has_engine()) nv_.nvjpegGetHardwareDecoderInfo(handle_, &engines_, &cores_);
  check(nv_.nvjpegJpegStreamCreate(handle_, &header_), "making a parser");
  check(nv_.nvjpegDecodeParamsCreate(handle_, &params_), "making parameters");
  check(nv_.nvjpegDecodeParamsSetOutputFormat(params_, nvjpeg::kUnchanged), "choosing the components as they are");
  for (Slot& slot : slots_) make_slot(slot);
}

void JpegDecoder::make_slot(Slot& slot) {
  auto need = [&](size_t bytes, bool pinned) {
    void* memory = gpu_->allocate(bytes, pinned);
    PL_CHECK(memory != nullptr, Fault::device, "%s has too little free memory: %zu MiB for decoding by nvJPEG",
             pinned ? "the host" : "the GPU", bytes >> 20);
    return static_cast<uint8_t*>(memory);
  };
  slot.planes = need(slot_bytes_, false);
  slot.tables = need(table_bytes(), false);
  slot.staged = need(table_bytes(), true);
  slot.event = gpu_->make_event();
  check(nv_.nvjpegJpegStateCreate(handle_, &slot.state), "making a state");
}

// Frees what is there: a failed `open` has not made the rest.
void JpegDecoder::close() {
  for (Slot& slot : slots_) {
    if (slot.event >= 0) gpu_->wait(slot.event);
    if (slot.state != nullptr) nv_.nvjpegJpegStateDestroy(slot.state);
    if (slot.planes != nullptr) gpu_->release(slot.planes, false);
    if (slot.tables != nullptr) gpu_->release(slot.tables, false);
    if (slot.staged != nullptr) gpu_->release(slot.staged, true);
    slot = {};
  }
  if (params_ != nullptr) nv_.nvjpegDecodeParamsDestroy(params_);
  if (header_ != nullptr) nv_.nvjpegJpegStreamDestroy(header_);
  if (handle_ != nullptr) nv_.nvjpegDestroy(handle_);
  params_ = nullptr, header_ = nullptr, handle_ = nullptr;
}

// Every tile but the last one of a picture takes kGroup * kGroupsPerTile bytes of padded luma.
size_t JpegDecoder::table_bytes() const {
  const size_t tiles = slot_bytes_ / (kGroup * kGroupsPerTile) + kMostFiles;
  return round_up(kMostFiles * sizeof(Components), kPieceAlign) + tiles * sizeof(Tile);
}

size_t JpegDecoder::device_bytes() const { return kSlots * (slot_bytes_ + table_bytes()) + device_.used(); }
size_t JpegDecoder::pinned_bytes() const { return kSlots * table_bytes() + pinned_.used(); }

// Returns true if nvJPEG takes the file and reads the same from it as its record says. Then *picture says how its
// components lie.
bool JpegDecoder::describe(const JpegFile& file, Picture* picture, size_t* bytes) {
  unsigned width = 0, height = 0, components = 0;
  auto sampling = static_cast<nvjpeg::Subsampling>(-1);
  int refused = 1;
  if (nv_.nvjpegJpegStreamParseHeader(handle_, file.bytes, file.length, header_) != nvjpeg::kSuccess ||
      nv_.nvjpegJpegStreamGetFrameDimensions(header_, &width, &height) != nvjpeg::kSuccess ||
      nv_.nvjpegJpegStreamGetComponentsNum(header_, &components) != nvjpeg::kSuccess ||
      nv_.nvjpegJpegStreamGetChromaSubsampling(header_, &sampling) != nvjpeg::kSuccess ||
      nv_.nvjpegDecodeBatchedSupportedEx(handle_, header_, params_, &refused) != nvjpeg::kSuccess || refused != 0)
    return false;
  const bool gray = sampling == nvjpeg::kGray;
  if (static_cast<int64_t>(width) != file.width || static_cast<int64_t>(height) != file.height ||
      components != (gray ? 1u : 3u))
    return false;
  int8_t wide = 1, tall = 1;
  switch (sampling) {
    case nvjpeg::kGray:
    case nvjpeg::k444:
      break;
    case nvjpeg::k422:
      wide = 2;
      break;
    case nvjpeg::k440:
      tall = 2;
      break;
    case nvjpeg::k420:
      wide = tall = 2;
      break;
    default:
      return false;
  }
  Components& c = picture->components;
  c = {};
  c.height = file.height, c.width = file.width;
  c.chroma_height = divide_up(c.height, tall), c.chroma_width = divide_up(c.width, wide);
  c.rgb_row = file.row_stride, c.rgb_plane = file.plane_stride;
  c.wide = wide, c.tall = tall, c.gray = gray;
  size_t at = 0;
  for (unsigned i = 0; i < components; ++i) {
    const auto rows = static_cast<size_t>(i == 0 ? c.height : c.chroma_height);
    const size_t row = round_up(static_cast<size_t>(i == 0 ? c.width : c.chroma_width), kRowAlign);
    c.rows[i] = static_cast<int64_t>(row);
    picture->plane_at[i] = at;
    at += round_up(row * round_up(rows, kMcuPx), kPieceAlign);
  }
  picture->file = file;
  *bytes = at;
  return true;
}

std::span<const PicturePlace> JpegDecoder::sort(std::span<const JpegFile> files) {
  const Inside inside(*gpu_);
  pictures_.clear(), places_.clear(), begins_.clear();
  groups_ = 0;
  size_t planes = slot_bytes_, rgb = 0;  // used in the last group: begins as if it were full
  for (const JpegFile& file : files) {
    Picture picture{};
    size_t bytes = 0;
    const size_t wanted = round_up(static_cast<size_t>(3 * file.plane_stride), kPieceAlign);
    if (wanted > slot_bytes_ || !describe(file, &picture, &bytes) || bytes > slot_bytes_) {
      places_.push_back({-1, 0});
      continue;
    }
    if (planes + bytes > slot_bytes_ || rgb + wanted > slot_bytes_ || pictures_.size() - begins_.back() == kMostFiles) {
      begins_.push_back(pictures_.size());
      ++groups_;
      planes = rgb = 0;
    }
    for (size_t& at : picture.plane_at) at += planes;
    picture.rgb_at = static_cast<int64_t>(rgb);
    places_.push_back({groups_ - 1, picture.rgb_at});
    pictures_.push_back(picture);
    planes += bytes;
    rgb += wanted;
  }
  begins_.push_back(pictures_.size());
  return places_;
}

nvjpeg::Status JpegDecoder::call(std::span<const Picture> pictures, Slot& slot, void* stream) {
  data_.clear(), lengths_.clear(), images_.clear();
  for (const Picture& picture : pictures) {
    data_.push_back(picture.file.bytes);
    lengths_.push_back(picture.file.length);
    nvjpeg::Image& image = images_.emplace_back();
    for (int c = 0; c < (picture.components.gray ? 1 : 3); ++c) {
      image.channel[c] = slot.planes + picture.plane_at[c];
      image.pitch[c] = static_cast<size_t>(picture.components.rows[c]);
    }
  }
  const int count = static_cast<int>(pictures.size());
  const nvjpeg::Status status = nv_.nvjpegDecodeBatchedInitialize(handle_, slot.state, count, 1, nvjpeg::kUnchanged);
  if (status != nvjpeg::kSuccess) return status;
  return nv_.nvjpegDecodeBatched(handle_, slot.state, data_.data(), lengths_.data(), images_.data(), stream);
}

// Writes to the slot's pinned memory. The conversion reads the copy on the device.
Conversion JpegDecoder::write_tables(std::span<const Picture> pictures, Slot& slot, uint8_t* rgb, size_t* bytes) {
  const size_t first_tile = round_up(pictures.size() * sizeof(Components), kPieceAlign);
  auto* tiles = reinterpret_cast<Tile*>(slot.staged + first_tile);
  int32_t count = 0;
  for (size_t i = 0; i < pictures.size(); ++i) {
    Components c = pictures[i].components;
    for (int plane = 0; plane < (c.gray ? 1 : 3); ++plane) c.planes[plane] = slot.planes + pictures[i].plane_at[plane];
    c.rgb = rgb + pictures[i].rgb_at;
    std::memcpy(slot.staged + i * sizeof c, &c, sizeof c);
    for (int32_t part = 0; part < rgb_tiles_of(c.height, c.width); ++part)
      tiles[count++] = {static_cast<int32_t>(i), part};
  }
  *bytes = first_tile + static_cast<size_t>(count) * sizeof(Tile);
  return {reinterpret_cast<const Components*>(slot.tables),
          {reinterpret_cast<const Tile*>(slot.tables + first_tile), count}};
}

bool JpegDecoder::decode(int32_t group, uint8_t* rgb, void* stream) {
  PL_CHECK(group >= 0 && group < groups_, Fault::argument, "group %d: there are %d", group, groups_);
  const Inside inside(*gpu_);
  const size_t begin = begins_[static_cast<size_t>(group)], end = begins_[static_cast<size_t>(group) + 1];
  const std::span<const Picture> pictures(pictures_.data() + begin, end - begin);
  Slot& slot = slots_[next_slot_];
  gpu_->wait(slot.event);
  const nvjpeg::Status status = call(pictures, slot, stream);
  if (status == nvjpeg::kSuccess) {
    size_t bytes = 0;
    const Conversion conversion = write_tables(pictures, slot, rgb, &bytes);
    gpu_->copy(slot.tables, slot.staged, bytes, stream);
    gpu_->convert(conversion, stream);
  } else {
    last_failure_ = name_of(status);
  }
  gpu_->record(slot.event, stream);  // also covers what a failed call may have queued
  next_slot_ = (next_slot_ + 1) % kSlots;
  return status == nvjpeg::kSuccess;
}

}  // namespace pass_loader::cuda
