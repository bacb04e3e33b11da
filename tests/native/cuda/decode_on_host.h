// A record decoded by the CUDA kernels, executed by the CPU. Every piece of memory is exactly as
// large as the kernels may use, for AddressSanitizer.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "cuda/gpu.h"
#include "cuda/idct.h"
#include "jpeg/forms.h"
#include "run_block.h"

namespace pass_loader {

struct DecodedOnHost {
  bool is_taken = false;  // GPUs take such pictures
  bool is_sound = false;  // else the CPU has to say what is wrong
  int32_t height = 0, width = 0;
  size_t row_stride = 0;
  std::vector<uint8_t> rgb;  // three planes, of height * row_stride

  const uint8_t* row(int plane, int32_t y) const {
    return rgb.data() +
           (static_cast<size_t>(plane) * static_cast<size_t>(height) + static_cast<size_t>(y)) * row_stride;
  }
};

// form: in memory of exactly its size. fill: what memory holds before, so that nothing can depend on it. backwards:
// blocks and threads from the last to the first.
inline DecodedOnHost decode_on_host(const std::vector<uint8_t>& memory, uint8_t fill, bool backwards) {
  DecodedOnHost out;
  out.is_taken = true;
  const auto& form = *reinterpret_cast<const GpuForm*>(memory.data());
  const bool is_dct = form.kind == GpuForm::Kind::dct;
  out.height = form.height, out.width = form.width;
  out.row_stride = round_up(static_cast<size_t>(form.width), 4);
  out.rgb.assign(3 * static_cast<size_t>(form.height) * out.row_stride, fill);
  const auto blocks_there = static_cast<size_t>(form.blocks());
  std::vector<cuda::BlockPlace> places(is_dct ? blocks_there : 0);
  for (cuda::BlockPlace& place : places) std::memset(&place, fill, sizeof place);
  std::vector<int16_t> coefficients(is_dct ? 0 : GpuForm::kBlockValues * blocks_there,
                                    static_cast<int16_t>(fill << 8 | fill));
  std::vector<uint8_t> planes[3];
  int32_t verdict = 0;
  cuda::CodedPicture picture{&form, {}, {}, &verdict};
  if (is_dct)
    picture.places = places.data();
  else
    picture.coefficients = coefficients.data();
  cuda::Components components{};
  for (int c = 0; c < form.components; ++c) {
    const GpuForm::Component& of = form.of[c];
    planes[c].assign(size_t{64} * static_cast<size_t>(of.rows) * static_cast<size_t>(of.columns), fill);
    components.planes[c] = picture.planes[c] = planes[c].data();
    components.rows[c] = int64_t{8} * of.columns;
    components.chroma_height = of.height, components.chroma_width = of.width;
  }
  components.height = form.height, components.width = form.width;
  components.rgb = out.rgb.data(), components.rgb_row = static_cast<int64_t>(out.row_stride);
  components.rgb_plane = static_cast<int64_t>(out.row_stride) * form.height;
  components.wide = static_cast<int8_t>(form.wide), components.tall = static_cast<int8_t>(form.tall);
  components.gray = form.components == 1;
  std::vector<cuda::Tile> rows, blocks, rgb;
  const int32_t row_count = is_dct ? form.rows() : static_cast<const ScanForm&>(form).mcu_rows;
  for (int32_t part = 0; part * cuda::kRowsPerTile < row_count; ++part) rows.push_back({0, part});
  for (int32_t part = 0; part * cuda::kThreads < form.blocks(); ++part) blocks.push_back({0, part});
  for (int32_t part = 0; part < cuda::rgb_tiles_of(form.height, form.width); ++part) rgb.push_back({0, part});
  const auto tiles = [](bool are_there, const std::vector<cuda::Tile>& of) {
    return cuda::Tiles{of.data(), are_there ? static_cast<int32_t>(of.size()) : 0};
  };
  const cuda::Decoding decoding{&picture,
                                &components,
                                tiles(is_dct, rows),
                                tiles(is_dct, blocks),
                                tiles(!is_dct, rows),
                                tiles(!is_dct, blocks),
                                tiles(true, rgb)};
  cuda::launch_decoding(decoding, [&](const auto& kernel, int32_t count) { run_blocks(kernel, count, backwards); });
  out.is_sound = verdict == 0;
  return out;
}

inline DecodedOnHost decode_on_host(const jpeg::DctRecord& record, uint8_t fill, bool backwards) {
  static jpeg::FormWriter writer;  // kept, as a thread keeps its own
  const size_t bytes = jpeg::form_bytes(record);
  if (bytes == 0) return {};
  std::vector<uint8_t> memory(bytes, fill);
  if (writer.write(record, memory.data())) return decode_on_host(memory, fill, backwards);
  DecodedOnHost refused;
  refused.is_taken = true;
  return refused;
}

}  // namespace pass_loader
