// A library in nvJPEG's place, on libjpeg-turbo: the functions that csrc/cuda/nvjpeg.cpp uses, for tests without a GPU.
// As the hardware, it writes components when it is called, whatever the stream has still to do; without hardware
// (arch_mismatch) in the order of the stream, and it reads the files only then. Whole MCUs are written.
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <jpeglib.h>

#include "cuda/nvjpeg_api.h"
#include "host_stream.h"

using namespace pass_loader::cuda::nvjpeg;

namespace {

struct Settings {
  long arch_mismatch = 0;  // there is no hardware
  long refuse_every = 0;   // SupportedEx refuses every so many-th picture that it is asked of
  long fail_every = 0;     // DecodeBatched fails at every so many-th call, in the middle
  long create_status = 0;  // of nvjpegCreateExV2
  long fail_state = 0;     // nvjpegJpegStateCreate fails where so many states are there
  long hunger = 1000;      // bytes of device memory that a state takes for each picture of a batch
} settings;
struct Counts {
  long asked = 0, calls = 0, decoded = 0;
} counts;
long states = 0, handles = 0;  // that are there

struct HandleImpl {
  Allocator device, pinned;
  bool hardware;
};
struct StateImpl {
  HandleImpl* handle;
  void* memory = nullptr;
  size_t bytes = 0;
  int batch = 0;
};
struct StreamImpl {
  unsigned width, height, components;
  int h[4], v[4];
};

struct Errors {
  jpeg_error_mgr base;
  jmp_buf jump;
};

void start(jpeg_decompress_struct& info, Errors& errors) {
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = [](j_common_ptr any) { std::longjmp(reinterpret_cast<Errors*>(any->err)->jump, 1); };
  errors.base.output_message = [](j_common_ptr) {};
  jpeg_create_decompress(&info);
}

bool parse(const unsigned char* data, size_t length, StreamImpl& stream) {
  jpeg_decompress_struct info{};
  Errors errors{};
  info.err = &errors.base;
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  start(info, errors);
  jpeg_mem_src(&info, data, length);
  jpeg_read_header(&info, TRUE);
  stream.width = info.image_width, stream.height = info.image_height;
  stream.components = static_cast<unsigned>(info.num_components);
  for (int c = 0; c < info.num_components && c < 4; ++c)
    stream.h[c] = info.comp_info[c].h_samp_factor, stream.v[c] = info.comp_info[c].v_samp_factor;
  jpeg_destroy_decompress(&info);
  return true;
}

// One picture's components, whole MCUs of them, as far as the pitch goes. False where libjpeg warns.
bool decode(const unsigned char* data, size_t length, const Image& out) {
  jpeg_decompress_struct info{};
  Errors errors{};
  info.err = &errors.base;
  std::vector<std::vector<uint8_t>> memory;
  std::vector<std::vector<JSAMPROW>> rows(4);
  if (setjmp(errors.jump) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  start(info, errors);
  jpeg_mem_src(&info, data, length);
  jpeg_read_header(&info, TRUE);
  info.raw_data_out = TRUE;
  info.out_color_space = info.jpeg_color_space;
  jpeg_start_decompress(&info);
  const int lines = info.max_v_samp_factor * DCTSIZE;
  JSAMPARRAY components[4] = {};
  memory.resize(4);
  for (int c = 0; c < info.num_components; ++c) {
    const jpeg_component_info& component = info.comp_info[c];
    const size_t width = component.width_in_blocks * DCTSIZE + 8 * DCTSIZE;
    memory[c].resize(width * static_cast<size_t>(lines));
    for (int y = 0; y < lines; ++y) rows[c].push_back(memory[c].data() + width * static_cast<size_t>(y));
    components[c] = rows[c].data();
  }
  std::vector<size_t> done(4, 0);
  while (info.output_scanline < info.output_height) {
    if (jpeg_read_raw_data(&info, components, static_cast<JDIMENSION>(lines)) == 0) break;
    for (int c = 0; c < info.num_components; ++c) {
      const jpeg_component_info& component = info.comp_info[c];
      const size_t bytes = std::min<size_t>(out.pitch[c], component.width_in_blocks * DCTSIZE);
      for (int y = 0; y < component.v_samp_factor * DCTSIZE; ++y)
        std::memcpy(out.channel[c] + out.pitch[c] * done[c]++, rows[c][y], bytes);
    }
  }
  const bool fine = errors.base.num_warnings == 0 && info.output_scanline >= info.output_height;
  jpeg_destroy_decompress(&info);
  return fine;
}

}  // namespace

extern "C" {

void standin_set(const char* name, long value) {
  const std::map<std::string, long*> all = {
      {"arch_mismatch", &settings.arch_mismatch}, {"refuse_every", &settings.refuse_every},
      {"fail_every", &settings.fail_every},       {"fail_state", &settings.fail_state},
      {"create_status", &settings.create_status}, {"hunger", &settings.hunger}};
  *all.at(name) = value;
}
long standin_count(const char* name) {
  const std::map<std::string, long> all = {
      {"asked", counts.asked}, {"decoded", counts.decoded}, {"states", states}, {"handles", handles}};
  return all.at(name);
}
void standin_reset() { settings = {}, counts = {}; }

Status nvjpegGetProperty(Property property, int* value) { return *value = property == kMajor ? 13 : 0, kSuccess; }

Status nvjpegCreateExV2(Backend backend, Allocator* device, Allocator* pinned, unsigned, Handle* handle) {
  if (settings.create_status != 0) return static_cast<Status>(settings.create_status);
  if (backend == kHardware && settings.arch_mismatch != 0) return kArchMismatch;
  *handle = new HandleImpl{*device, *pinned, backend == kHardware};
  ++handles;
  return kSuccess;
}
// Of benchmarks/gpu/probe_nvjpeg.py: memory comes from anywhere.
Status nvjpegCreateEx(Backend backend, void*, void*, unsigned, Handle* handle) {
  Allocator allocator{[](void*, void** memory, size_t bytes, CudaStream) { return *memory = std::malloc(bytes), 0; },
                      [](void*, void* memory, size_t, CudaStream) { return std::free(memory), 0; }, nullptr};
  return nvjpegCreateExV2(backend, &allocator, &allocator, 0, handle);
}
Status nvjpegDestroy(Handle handle) { return delete static_cast<HandleImpl*>(handle), --handles, kSuccess; }
Status nvjpegGetHardwareDecoderInfo(Handle, unsigned* engines, unsigned* cores) {
  return *engines = 7, *cores = 1, kSuccess;
}

Status nvjpegJpegStateCreate(Handle handle, State* state) {
  if (settings.fail_state != 0 && states == settings.fail_state) return kAllocatorFailure;
  *state = new StateImpl{static_cast<HandleImpl*>(handle)};
  ++states;
  return kSuccess;
}
Status nvjpegJpegStateDestroy(State state) {
  auto* s = static_cast<StateImpl*>(state);
  if (s->memory != nullptr) s->handle->device.release(s->handle->device.context, s->memory, s->bytes, nullptr);
  delete s;
  --states;
  return kSuccess;
}
Status nvjpegJpegStreamCreate(Handle, Stream* stream) { return *stream = new StreamImpl{}, kSuccess; }
Status nvjpegJpegStreamDestroy(Stream stream) { return delete static_cast<StreamImpl*>(stream), kSuccess; }
Status nvjpegJpegStreamParseHeader(Handle, const unsigned char* data, size_t length, Stream stream) {
  return parse(data, length, *static_cast<StreamImpl*>(stream)) ? kSuccess : static_cast<Status>(3);
}
Status nvjpegJpegStreamGetFrameDimensions(Stream stream, unsigned* width, unsigned* height) {
  const auto* s = static_cast<StreamImpl*>(stream);
  return *width = s->width, *height = s->height, kSuccess;
}
Status nvjpegJpegStreamGetComponentsNum(Stream stream, unsigned* components) {
  return *components = static_cast<StreamImpl*>(stream)->components, kSuccess;
}
Status nvjpegJpegStreamGetChromaSubsampling(Stream stream, Subsampling* sampling) {
  const auto* s = static_cast<StreamImpl*>(stream);
  const bool wide = s->h[0] == 2, tall = s->v[0] == 2;
  *sampling = s->components == 1 ? kGray : wide && tall ? k420 : wide ? k422 : tall ? k440 : k444;
  return kSuccess;
}
Status nvjpegDecodeParamsCreate(Handle, Params* params) {
  return *params = new Output{static_cast<Output>(3)}, kSuccess;
}
Status nvjpegDecodeParamsDestroy(Params params) { return delete static_cast<Output*>(params), kSuccess; }
Status nvjpegDecodeParamsSetOutputFormat(Params params, Output output) {
  return *static_cast<Output*>(params) = output, kSuccess;
}
Status nvjpegDecodeBatchedSupportedEx(Handle, Stream, Params params, int* refused) {
  ++counts.asked;
  const bool its_turn = settings.refuse_every > 0 && counts.asked % settings.refuse_every == 0;
  *refused = *static_cast<Output*>(params) != kUnchanged || its_turn;
  return kSuccess;
}

Status nvjpegDecodeBatchedInitialize(Handle, State state, int batch, int, Output output) {
  auto* s = static_cast<StateImpl*>(state);
  const Allocator& device = s->handle->device;
  s->batch = output == kUnchanged ? batch : 0;
  const size_t wanted = static_cast<size_t>(settings.hunger) * static_cast<size_t>(batch);
  if (wanted <= s->bytes) return kSuccess;
  if (s->memory != nullptr) device.release(device.context, s->memory, s->bytes, nullptr);
  s->memory = nullptr, s->bytes = 0;
  if (device.allocate(device.context, &s->memory, wanted, nullptr) != 0) return kAllocatorFailure;
  s->bytes = wanted;
  return kSuccess;
}

Status nvjpegDecodeBatched(Handle handle, State state, const unsigned char* const* data, const size_t* lengths,
                           Image* images, CudaStream stream) {
  const int batch = static_cast<StateImpl*>(state)->batch;
  if (batch == 0) return static_cast<Status>(2);
  const bool fails = settings.fail_every > 0 && ++counts.calls % settings.fail_every == 0;
  for (int i = 0; i < batch; ++i) {
    if (fails && i == batch / 2) return static_cast<Status>(6);
    if (static_cast<HandleImpl*>(handle)->hardware) {
      if (!decode(data[i], lengths[i], images[i])) return static_cast<Status>(3);
    } else {
      static_cast<HostStream*>(stream)->enqueue(
          [from = data[i], length = lengths[i], image = images[i]] { decode(from, length, image); });
    }
    ++counts.decoded;
  }
  return kSuccess;
}

}  // extern "C"
