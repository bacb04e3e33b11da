#include "cuda/exact.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "error.h"
#include "image.h"

namespace pass_loader::cuda {
namespace {

enum TileKind { kRows, kBlocks, kMcuRows, kScanBlocks, kRgb, kTileKinds };  // as in Decoding

size_t aligned(size_t bytes) { return round_up(bytes, kPieceAlign); }
int64_t aligned(int64_t bytes) { return static_cast<int64_t>(aligned(static_cast<size_t>(bytes))); }

}  // namespace

ExactDecoder::ExactDecoder(std::unique_ptr<Gpu> gpu, size_t group_bytes)
    : gpu_(std::move(gpu)), group_bytes_(group_bytes) {
  const Inside inside(*gpu_);
  for (Slot& slot : slots_) slot.event = gpu_->make_event();
}

ExactDecoder::~ExactDecoder() {
  const Inside inside(*gpu_);
  if (!inside) return;  // CUDA is gone, and all that belonged to it
  try {
    for (const Slot& slot : slots_) {
      gpu_->wait(slot.event);
      if (slot.staged != nullptr) gpu_->release(slot.staged, true);
    }
  } catch (const Error&) {  // the GPU has failed before: nothing can be given back to it
  }
}

size_t ExactDecoder::pinned_bytes() const {
  size_t bytes = 0;
  for (const Slot& slot : slots_) bytes += slot.bytes;
  return bytes;
}

ExactDecoder::Picture ExactDecoder::describe(const CodedFile& file, int32_t number) {
  const GpuForm& form = *file.form;
  Picture picture{};
  picture.file = file, picture.number = number;
  picture.is_dct = form.kind == GpuForm::Kind::dct;
  picture.components = form.components, picture.blocks = form.blocks();
  picture.rows = picture.is_dct ? form.rows() : static_cast<const ScanForm&>(form).mcu_rows;
  picture.rgb_tiles = rgb_tiles_of(form.height, form.width);
  Components& shape = picture.shape;
  for (int c = 0; c < form.components; ++c) shape.rows[c] = int64_t{8} * form.of[c].columns;
  shape.height = form.height, shape.width = form.width;
  shape.chroma_height = form.of[form.components - 1].height, shape.chroma_width = form.of[form.components - 1].width;
  shape.rgb_row = file.row_stride, shape.rgb_plane = file.plane_stride;
  shape.wide = static_cast<int8_t>(form.wide), shape.tall = static_cast<int8_t>(form.tall);
  shape.gray = form.components == 1;
  // Places in the workspace, from 0 on.
  const size_t block_bytes = picture.is_dct ? sizeof(BlockPlace) : GpuForm::kBlockValues * sizeof(int16_t);
  int64_t at = aligned(picture.blocks * static_cast<int64_t>(block_bytes));
  for (int c = 0; c < form.components; ++c) {
    picture.planes_at[c] = at;
    at += aligned(int64_t{64} * form.of[c].rows * form.of[c].columns);
  }
  picture.rgb_at = at;
  return picture;
}

// Moves the picture's pieces to `begin`. Returns where they end.
int64_t ExactDecoder::place(Picture& picture, int64_t begin) {
  picture.blocks_at += begin, picture.rgb_at += begin;
  for (int64_t& at : picture.planes_at) at += begin;
  return picture.rgb_at + aligned(3 * picture.file.plane_stride);
}

ExactDecoder::Tables ExactDecoder::lay_out(std::span<const Picture> pictures) {
  Tables tables{};
  for (const Picture& picture : pictures) {
    tables.counts[picture.is_dct ? kRows : kMcuRows] += divide_up(picture.rows, kRowsPerTile);
    tables.counts[picture.is_dct ? kBlocks : kScanBlocks] += divide_up(picture.blocks, kThreads);
    tables.counts[kRgb] += picture.rgb_tiles;
  }
  tables.components = aligned(pictures.size() * sizeof(CodedPicture));
  tables.bytes = tables.components + aligned(pictures.size() * sizeof(Components));
  for (int i = 0; i < kTileKinds; ++i) {
    tables.tiles[i] = tables.bytes;
    tables.bytes += aligned(static_cast<size_t>(tables.counts[i]) * sizeof(Tile));
  }
  return tables;
}

std::span<const PicturePlace> ExactDecoder::sort(std::span<const CodedFile> files) {
  pictures_.clear(), places_.clear(), groups_.clear();
  workspace_bytes_ = 0;
  Group group{};           // the one in work
  size_t table_bytes = 0;  // at most, of it
  const auto end_group = [&] {
    group.end = pictures_.size();
    if (group.end == group.begin) return;
    group.tables = lay_out(std::span(pictures_).subspan(group.begin));
    workspace_bytes_ = std::max(workspace_bytes_, static_cast<size_t>(group.used) + group.tables.bytes);
    groups_.push_back(group);
    group = {group.end, group.end, 0, {}};
    table_bytes = 0;
  };
  for (const CodedFile& file : files) {
    const Picture described = describe(file, static_cast<int32_t>(places_.size()));
    const size_t own_tables = lay_out({&described, 1}).bytes;
    const auto fits = [&](Picture picture) {
      return static_cast<size_t>(place(picture, group.used)) + table_bytes + own_tables <= group_bytes_;
    };
    if (!fits(described) || pictures_.size() - group.begin == kMostFiles) {
      end_group();
      if (!fits(described)) {
        places_.push_back({-1, 0});
        continue;
      }
    }
    Picture& picture = pictures_.emplace_back(described);
    group.used = place(picture, group.used);
    table_bytes += own_tables;
    places_.push_back({groups(), picture.rgb_at});
  }
  end_group();
  return places_;
}

// Returns a slot with so much room whose last copy is done.
ExactDecoder::Slot& ExactDecoder::need_slot(size_t bytes) {
  Slot& slot = slots_[next_slot_];
  next_slot_ = (next_slot_ + 1) % kSlots;
  gpu_->wait(slot.event);
  if (bytes <= slot.bytes) return slot;
  if (slot.staged != nullptr) gpu_->release(std::exchange(slot.staged, nullptr), true);
  slot.bytes = 0;
  const size_t wanted = bytes + bytes / 4;
  slot.staged = static_cast<uint8_t*>(gpu_->allocate(wanted, true));
  PL_CHECK(slot.staged != nullptr, Fault::device, "the host has too little pinned memory: %zu KiB for tables",
           wanted >> 10);
  slot.bytes = wanted;
  return slot;
}

void ExactDecoder::decode(int32_t number, uint8_t* workspace, int32_t* verdicts, void* stream) {
  PL_CHECK(number >= 0 && number < groups(), Fault::argument, "group %d: there are %d", number, groups());
  const Inside inside(*gpu_);
  const Group& group = groups_[static_cast<size_t>(number)];
  const Tables& tables = group.tables;
  const std::span<const Picture> pictures = std::span(pictures_).subspan(group.begin, group.end - group.begin);
  Slot& slot = need_slot(tables.bytes);
  Tile* next[kTileKinds];
  for (int i = 0; i < kTileKinds; ++i) next[i] = reinterpret_cast<Tile*>(slot.staged + tables.tiles[i]);
  for (size_t i = 0; i < pictures.size(); ++i) {
    const Picture& p = pictures[i];
    CodedPicture picture{reinterpret_cast<const GpuForm*>(p.file.there), {}, {}, verdicts + p.number};
    if (p.is_dct)
      picture.places = reinterpret_cast<BlockPlace*>(workspace + p.blocks_at);
    else
      picture.coefficients = reinterpret_cast<int16_t*>(workspace + p.blocks_at);
    Components shape = p.shape;
    for (int c = 0; c < p.components; ++c) shape.planes[c] = picture.planes[c] = workspace + p.planes_at[c];
    shape.rgb = workspace + p.rgb_at;
    std::memcpy(slot.staged + i * sizeof picture, &picture, sizeof picture);
    std::memcpy(slot.staged + tables.components + i * sizeof shape, &shape, sizeof shape);
    const auto add = [&](TileKind kind, int32_t parts) {
      for (int32_t part = 0; part < parts; ++part) *next[kind]++ = {static_cast<int32_t>(i), part};
    };
    add(p.is_dct ? kRows : kMcuRows, divide_up(p.rows, kRowsPerTile));
    add(p.is_dct ? kBlocks : kScanBlocks, divide_up(p.blocks, kThreads));
    add(kRgb, p.rgb_tiles);
  }
  uint8_t* there = workspace + group.used;
  gpu_->copy(there, slot.staged, tables.bytes, stream);
  gpu_->record(slot.event, stream);
  const auto tiles = [&](TileKind kind) {
    return Tiles{reinterpret_cast<const Tile*>(there + tables.tiles[kind]), tables.counts[kind]};
  };
  gpu_->decode(
      {reinterpret_cast<const CodedPicture*>(there), reinterpret_cast<const Components*>(there + tables.components),
       tiles(kRows), tiles(kBlocks), tiles(kMcuRows), tiles(kScanBlocks), tiles(kRgb)},
      stream);
}

}  // namespace pass_loader::cuda
