// Compiles where csrc/cuda/nvjpeg_api.h says of nvJPEG what its own header says.
#include "cuda/nvjpeg_api.h"

#include <cstddef>
#include <tuple>
#include <type_traits>

#include <nvjpeg.h>

namespace ours = pass_loader::cuda::nvjpeg;

// Passed alike: numbers of one size, or pointers.
template <typename A, typename B>
constexpr bool kAlike = sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B> &&
                        (std::is_pointer_v<A> ||
                         (std::is_integral_v<A> || std::is_enum_v<A>) == (std::is_integral_v<B> || std::is_enum_v<B>));

template <typename A, typename B>
constexpr bool kSame = false;
template <typename R, typename... A, typename S, typename... B>
constexpr bool kSame<R (*)(A...), S (*)(B...)> = [] {
  if constexpr (sizeof...(A) != sizeof...(B))
    return false;
  else
    return kAlike<R, S> && (kAlike<A, B> && ...);
}();

#define PL_COMPARE(name, arguments) \
  static_assert(kSame<decltype(ours::Functions::name), decltype(&::name)>, "another signature: " #name);
PL_NVJPEG_FUNCTIONS(PL_COMPARE)

static_assert(ours::kSuccess == +NVJPEG_STATUS_SUCCESS && ours::kAllocatorFailure == +NVJPEG_STATUS_ALLOCATOR_FAILURE &&
              ours::kArchMismatch == +NVJPEG_STATUS_ARCH_MISMATCH);
static_assert(ours::kGpuHybrid == +NVJPEG_BACKEND_GPU_HYBRID && ours::kHardware == +NVJPEG_BACKEND_HARDWARE);
static_assert(ours::kUnchanged == +NVJPEG_OUTPUT_UNCHANGED);
static_assert(ours::k444 == +NVJPEG_CSS_444 && ours::k422 == +NVJPEG_CSS_422 && ours::k420 == +NVJPEG_CSS_420 &&
              ours::k440 == +NVJPEG_CSS_440 && ours::kGray == +NVJPEG_CSS_GRAY);
static_assert(ours::kMajor == +MAJOR_VERSION && ours::kMinor == +MINOR_VERSION && ours::kPatch == +PATCH_LEVEL);
static_assert(ours::kMaxComponents == NVJPEG_MAX_COMPONENT && sizeof(ours::Image) == sizeof(nvjpegImage_t) &&
              offsetof(ours::Image, pitch) == offsetof(nvjpegImage_t, pitch));
static_assert(sizeof(ours::Allocator) == sizeof(nvjpegDevAllocatorV2_t) &&
              offsetof(ours::Allocator, release) == offsetof(nvjpegDevAllocatorV2_t, dev_free) &&
              offsetof(ours::Allocator, context) == offsetof(nvjpegDevAllocatorV2_t, dev_ctx) &&
              sizeof(ours::Allocator) == sizeof(nvjpegPinnedAllocatorV2_t) &&
              offsetof(ours::Allocator, release) == offsetof(nvjpegPinnedAllocatorV2_t, pinned_free) &&
              offsetof(ours::Allocator, context) == offsetof(nvjpegPinnedAllocatorV2_t, pinned_ctx));
static_assert(kSame<decltype(ours::Allocator::allocate), tDevMallocV2> &&
              kSame<decltype(ours::Allocator::release), tDevFreeV2>);
static_assert(kSame<decltype(ours::Allocator::allocate), tPinnedMallocV2> &&
              kSame<decltype(ours::Allocator::release), tPinnedFreeV2>);
