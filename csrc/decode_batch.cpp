#include "decode_batch.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "decode.h"
#include "error.h"
#include "image.h"
#include "shard.h"

namespace pass_loader {
namespace {

constexpr size_t kPictureAlign = 256;  // bytes: of a picture in an arena
constexpr size_t kRowAlign = 16;       // and of its rows

// A gray picture becomes three equal planes: what renders them knows RGB alone.
void copy_planes(const ConstPlanes& picture, const ArenaPicture& place, uint8_t* arena) {
  for (int c = 0; c < 3; ++c) {
    uint8_t* to = arena + place.offset + c * place.plane_stride;
    const int from = picture.channels == 1 ? 0 : c;
    for (int32_t y = 0; y < picture.height; ++y, to += place.row_stride)
      std::memcpy(to, picture.row(from, y), static_cast<size_t>(picture.width));
  }
}

}  // namespace

DecodeBatch::DecodeBatch(const Engine& engine, DecodeRequest request)
    : Batch(request.samples.size()), engine_(engine), setup_(engine.setup()), request_(std::move(request)) {}

void DecodeBatch::make(int64_t slot, size_t worker) {
  engine_.worker(worker).run(
      [&](WorkingMemory& memory, StageClock& clock) { return decode_sample(slot, memory, clock); });
}

void DecodeBatch::clear(int64_t slot) {
  const size_t views = setup_.views();
  request_.pictures[slot] = {};
  if (request_.files != nullptr) request_.files[slot] = 0;
  std::fill_n(request_.plans + slot * views, views, ViewPlan{});
}

// Returns the picture's pixels, or 0 if there was no room. The header says whether there is before anything is decoded.
int64_t DecodeBatch::decode_sample(int64_t slot, WorkingMemory& memory, StageClock& clock) {
  const SampleKey& key = request_.samples[slot];
  const ReadAhead::Loan ahead = take(request_.announced.samples, slot);
  const std::span<const uint8_t> bytes = ahead.read(*setup_.reader, key.record, memory.bytes);
  clock.charge(Stage::read);
  const PictureHeader header = read_header(bytes, setup_.limits);
  PL_CHECK(header.bits == 8, Fault::argument, "gray of 16 bits is rendered on the CPU alone: take device=\"cpu\"");
  const Held wish = request_.files == nullptr ? Held::pixels : static_cast<Held>(request_.files[slot]);
  size_t file = 0;
  if (wish == Held::file && header.ends && memory.decoder.is_plain_jpeg(bytes)) file = bytes.size();
  Proof proof;
  if (wish == Held::form && header.ends) {
    proof = setup_.reader->proof_of(key.record);
    file = memory.decoder.form_bytes(bytes, proof.points);
  }
  if (request_.files != nullptr) request_.files[slot] = static_cast<int64_t>(file);
  const ArenaPicture picture = place(header.height, header.width, file);
  request_.pictures[slot] = picture;
  if (picture.offset < 0) return 0;
  if (file == 0) {
    const ConstPlanes planes = memory.decoder.decode(bytes, setup_.limits);
    PL_CHECK(planes.height == header.height && planes.width == header.width && !planes.deep, Fault::record,
             "the header says %d x %d (height x width), the pixels are %d x %d", header.height, header.width,
             planes.height, planes.width);
    copy_planes(planes, picture, request_.arena);
  } else if (wish == Held::file) {
    std::memcpy(request_.arena + picture.offset, bytes.data(), file);
  } else if (!memory.decoder.write_form(bytes, proof.points, request_.arena + picture.offset)) {
    memory.decoder.decode(bytes, setup_.limits);  // says what is wrong
    fail(Fault::record, "dct: its lengths contradict its streams");
  }
  clock.charge(Stage::decode);
  const size_t views = setup_.views();
  plan_views(setup_.recipe, key, header.height, header.width, {request_.plans + slot * views, views});
  clock.charge(Stage::plan);
  return int64_t{header.height} * header.width;
}

// Reserves room for a picture of this size, or for its file or form of so many bytes (0: for its pixels). offset -1:
// there is not enough left. A smaller picture may find some yet.
ArenaPicture DecodeBatch::place(int32_t height, int32_t width, size_t file) {
  const size_t row = round_up(static_cast<size_t>(width), kRowAlign), plane = row * static_cast<size_t>(height);
  ArenaPicture picture{-1, height, width, static_cast<int64_t>(row), static_cast<int64_t>(plane)};
  const size_t wanted = round_up(file > 0 ? file : 3 * plane, kPictureAlign);
  size_t begin = arena_used_;
  do {
    if (wanted > request_.arena_bytes || begin > request_.arena_bytes - wanted) return picture;
  } while (!arena_used_.compare_exchange_weak(begin, begin + wanted));
  picture.offset = static_cast<int64_t>(begin);
  return picture;
}

}  // namespace pass_loader
