// An accelerator for torch (PrivateUse1) whose device is this process: what a GPU's driver promises about pinned memory
// and asynchronous copies, made as unkind as it may be.
//
// Device memory: pages that nobody may touch (SIGSEGV) but a copy that is at it. Operators run on copies on the CPU.
// Pinned memory: a block that is freed is filled with kGarbage and is the next one to be given out. Whoever writes into
// it
//   in between is counted.
// Copies with non_blocking from pinned memory are done as late as possible: when the device's memory is looked at, or
// at
//   standin_synchronize. As CUDA's allocator of pinned memory, ours keeps a block that is freed before its copies are
//   done; it knows a block by the storage that it gave out, not by addresses that lie in it.

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_local_scalar_dense.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>

namespace {

constexpr auto kDevice = c10::DeviceType::PrivateUse1;
constexpr auto kKeys = c10::DispatchKey::PrivateUse1;
constexpr unsigned char kGarbage = 0xA5;
constexpr size_t kPage = 4096;

std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

size_t in_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// ---- pinned memory ----

struct Block {
  unsigned char* memory;
  size_t room, bytes = 0;  // bytes: asked for; 0: free
  int copies = 0;          // from it that are queued
  bool freed = false;      // as soon as these are done
};

struct Pinned final : c10::Allocator {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Block*> free;
  int64_t bytes = 0, given = 0, reused = 0, written_while_free = 0;

  c10::DataPtr allocate(size_t asked) override {
    Lock lock(mutex);
    if (asked == 0) return {nullptr, c10::Device(c10::DeviceType::CPU)};
    Block* block = take(asked);
    block->bytes = asked;
    bytes += static_cast<int64_t>(asked);
    ++given;
    return {block->memory, block, &Pinned::release, c10::Device(c10::DeviceType::CPU)};
  }

  Block* take(size_t asked) {
    auto found = std::find_if(free.rbegin(), free.rend(), [&](Block* block) { return block->room >= asked; });
    if (found != free.rend()) {
      Block* block = *found;
      free.erase(std::next(found).base());
      ++reused;
      look_at(block);
      return block;
    }
    auto* memory = static_cast<unsigned char*>(std::aligned_alloc(kPage, in_pages(asked)));
    TORCH_CHECK(memory != nullptr, "no memory for ", asked, " bytes");
    blocks.push_back(std::make_unique<Block>(Block{memory, in_pages(asked)}));
    return blocks.back().get();
  }

  void look_at(Block* block) {
    unsigned char* end = block->memory + block->room;
    if (std::all_of(block->memory, end, [](unsigned char byte) { return byte == kGarbage; })) return;
    ++written_while_free;
    std::fill(block->memory, end, kGarbage);
  }

  static void release(void* context);

  void give_back(Block* block) {
    bytes -= static_cast<int64_t>(block->bytes);
    block->bytes = 0;
    block->freed = false;
    std::memset(block->memory, kGarbage, block->room);
    free.push_back(block);
  }

  Block* holding(const void* address) {
    for (auto& block : blocks)
      if (address >= block->memory && address < block->memory + block->room) return block.get();
    return nullptr;
  }

  Block* given_out_as(const void* context) {
    for (auto& block : blocks)
      if (block.get() == context) return block.get();
    return nullptr;
  }

  void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }
} pinned;

void Pinned::release(void* context) {
  Lock lock(mutex);
  auto* block = static_cast<Block*>(context);
  if (block->copies > 0)
    block->freed = true;
  else
    pinned.give_back(block);
}

// ---- memory of the device ----

void protect(const c10::Storage& storage, int how) {
  if (storage.nbytes() > 0)
    TORCH_CHECK(mprotect(const_cast<void*>(storage.data()), in_pages(storage.nbytes()), how) == 0, "mprotect");
}

struct Memory final : c10::Allocator {
  struct Pages {
    void* address;
    size_t bytes;
  };

  c10::DataPtr allocate(size_t asked) override {
    const auto here = c10::Device(kDevice, 0);
    if (asked == 0) return {nullptr, here};
    void* address = mmap(nullptr, in_pages(asked), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(address != MAP_FAILED, "no memory for ", asked, " bytes");
    return {address, new Pages{address, in_pages(asked)}, &Memory::release, here};
  }

  static void release(void* context) {
    auto* pages = static_cast<Pages*>(context);
    munmap(pages->address, pages->bytes);
    delete pages;
  }

  void copy_data(void*, const void*, size_t) const override { TORCH_CHECK(false, "device memory is copied by copy_"); }
} memory;

// ---- copies ----

/// The same memory as a tensor of the CPU's.
at::Tensor as_cpu(const at::Tensor& tensor) {
  return at::for_blob(const_cast<void*>(tensor.const_data_ptr()), tensor.sizes())
      .strides(tensor.strides())
      .options(at::TensorOptions().dtype(tensor.scalar_type()).device(c10::kCPU))
      .make_tensor();
}

void run_copy(const at::Tensor& from, const at::Tensor& to) {
  if (to.numel() == 0) return;
  for (const auto* one : {&from, &to})
    if (!one->is_cpu()) protect(one->storage(), PROT_READ | PROT_WRITE);
  as_cpu(to).copy_(as_cpu(from));
  for (const auto* one : {&from, &to})
    if (!one->is_cpu()) protect(one->storage(), PROT_NONE);
}

struct Queued {
  at::Tensor from, to;  // from: an alias that keeps nothing alive
  Block* block;         // may be null: then nothing keeps the memory
};
std::deque<Queued> queue;
int64_t queued = 0;  // since the start

void synchronize() {
  Lock lock(mutex);
  while (!queue.empty()) {
    Queued copy = std::move(queue.front());
    queue.pop_front();
    run_copy(copy.from, copy.to);
    if (copy.block != nullptr && --copy.block->copies == 0 && copy.block->freed) pinned.give_back(copy.block);
  }
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  Lock lock(mutex);
  if (non_blocking && from.is_cpu() && from.numel() > 0 && pinned.holding(from.const_data_ptr()) != nullptr) {
    Block* block = pinned.given_out_as(from.storage().data_ptr().get_context());
    if (block != nullptr) ++block->copies;
    queue.push_back({as_cpu(from), to, block});
    ++queued;
    return to;
  }
  synchronize();
  run_copy(from, to);
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  TORCH_CHECK(from.sizes() == to.sizes(), "this device does not resize");
  return copy_from(from, to, false);
}

// ---- tensors and operators ----

void check_device(std::optional<at::Device> device) {
  TORCH_CHECK(!device || !device->has_index() || device->index() == 0, "there is one device, got ", *device);
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  check_device(device);
  return at::detail::empty_generic(size, &memory, c10::DispatchKeySet(kKeys), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  check_device(device);
  return at::detail::empty_strided_generic(size, stride, &memory, c10::DispatchKeySet(kKeys),
                                           c10::dtype_or_default(dtype));
}

at::Tensor as_strided(const at::Tensor& self, at::IntArrayRef size, at::IntArrayRef stride,
                      std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}

at::Scalar to_scalar(const at::Tensor& self) { return at::_local_scalar_dense(self.to(c10::kCPU)); }

void on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) { at::native::cpu_fallback(op, stack); }

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kDevice> {
  c10::Device getDevice() const override { return {kDevice, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return {kDevice, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override {
    return c10::Stream(c10::Stream::DEFAULT, c10::Device(kDevice, 0));
  }
};

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned; }
  bool isPinnedPtr(const void* address) const override {
    Lock lock(mutex);
    return pinned.holding(address) != nullptr;
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &as_strided);
  m.impl("view", &at::native::view);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &to_scalar);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_cpu>()); }

const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  c10::SetAllocator(kDevice, &memory);
  return true;
}();

}  // namespace

/// Bytes of pinned memory that are given out; blocks ever given out, of these used before, of these written while free;
/// copies queued since the start, and not done yet.
extern "C" void standin_counts(int64_t* out) {
  Lock lock(mutex);
  const int64_t counts[] = {
      pinned.bytes, pinned.given, pinned.reused, pinned.written_while_free, queued, static_cast<int64_t>(queue.size())};
  std::copy(std::begin(counts), std::end(counts), out);
}

extern "C" void standin_synchronize() { synchronize(); }

extern "C" void standin_look_at_the_free() {
  Lock lock(mutex);
  for (Block* block : pinned.free) pinned.look_at(block);
}
