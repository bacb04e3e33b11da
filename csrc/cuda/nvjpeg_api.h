// The part of nvJPEG's interface that is used, version 13 (nvjpeg.h of the package nvidia-nvjpeg 13.3): numbers,
// layouts and signatures. So the build needs neither header nor library. tests/native/cuda/nvjpeg_api.cpp compares this
// file with the header.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pass_loader::cuda::nvjpeg {

using Handle = void*;
using State = void*;
using Stream = void*;  // a parsed header
using Params = void*;
using CudaStream = void*;

enum Status : int { kSuccess = 0, kAllocatorFailure = 5, kArchMismatch = 7 };
enum Backend : int { kGpuHybrid = 2, kHardware = 3 };
enum Output : int { kUnchanged = 0 };
enum Subsampling : int { k444 = 0, k422 = 1, k420 = 2, k440 = 3, kGray = 6 };
enum Property : int { kMajor = 0, kMinor = 1, kPatch = 2 };

constexpr int kMaxComponents = 4;
struct Image {
  uint8_t* channel[kMaxComponents];
  size_t pitch[kMaxComponents];
};

struct Allocator {  // device memory or pinned memory; 0: success
  int (*allocate)(void* context, void** memory, size_t bytes, CudaStream stream);
  int (*release)(void* context, void* memory, size_t bytes, CudaStream stream);
  void* context;
};

// X(name, arguments)
#define PL_NVJPEG_FUNCTIONS(X)                                                   \
  X(nvjpegGetProperty, (Property, int*))                                         \
  X(nvjpegCreateExV2, (Backend, Allocator*, Allocator*, unsigned, Handle*))      \
  X(nvjpegDestroy, (Handle))                                                     \
  X(nvjpegGetHardwareDecoderInfo, (Handle, unsigned*, unsigned*))                \
  X(nvjpegJpegStateCreate, (Handle, State*))                                     \
  X(nvjpegJpegStateDestroy, (State))                                             \
  X(nvjpegJpegStreamCreate, (Handle, Stream*))                                   \
  X(nvjpegJpegStreamDestroy, (Stream))                                           \
  X(nvjpegJpegStreamParseHeader, (Handle, const unsigned char*, size_t, Stream)) \
  X(nvjpegJpegStreamGetFrameDimensions, (Stream, unsigned*, unsigned*))          \
  X(nvjpegJpegStreamGetComponentsNum, (Stream, unsigned*))                       \
  X(nvjpegJpegStreamGetChromaSubsampling, (Stream, Subsampling*))                \
  X(nvjpegDecodeParamsCreate, (Handle, Params*))                                 \
  X(nvjpegDecodeParamsDestroy, (Params))                                         \
  X(nvjpegDecodeParamsSetOutputFormat, (Params, Output))                         \
  X(nvjpegDecodeBatchedSupportedEx, (Handle, Stream, Params, int*))              \
  X(nvjpegDecodeBatchedInitialize, (Handle, State, int, int, Output))            \
  X(nvjpegDecodeBatched, (Handle, State, const unsigned char* const*, const size_t*, Image*, CudaStream))

struct Functions {
#define PL_DECLARE(name, arguments) Status(*name) arguments = nullptr;
  PL_NVJPEG_FUNCTIONS(PL_DECLARE)
#undef PL_DECLARE
};

}  // namespace pass_loader::cuda::nvjpeg
