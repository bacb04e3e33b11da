#include "jpeg/describe.h"

#include <algorithm>
#include <cstring>

namespace pass_loader::jpeg {

namespace {

// Returns true for Huffman-coded gray or YCbCr of 8 bits, with factors up to 2 x 2 for luma and 1 x 1 for colour.
bool has_plain_frame(const jpeg_decompress_struct& info) {
  const bool gray = info.num_components == 1 && info.jpeg_color_space == JCS_GRAYSCALE;
  const bool colour = info.num_components == 3 && info.jpeg_color_space == JCS_YCbCr;
  if ((!gray && !colour) || info.arith_code || info.data_precision != 8) return false;
  const jpeg_component_info* components = info.comp_info;
  if (gray) return true;
  if (components[0].h_samp_factor > 2 || components[0].v_samp_factor > 2) return false;
  for (int c = 1; c < info.num_components; ++c)
    if (components[c].h_samp_factor != 1 || components[c].v_samp_factor != 1) return false;
  return true;
}

// These numbers come from the file, and libjpeg checks them only when it starts to decode.
bool in_range(int number, int tables) { return number >= 0 && number < tables; }

// Returns false if a quantisation table is missing. has_plain_frame must have returned true.
bool describe_plain_frame(const jpeg_decompress_struct& info, Frame* frame) {
  const bool gray = info.num_components == 1;
  frame->height = static_cast<int32_t>(info.image_height), frame->width = static_cast<int32_t>(info.image_width);
  frame->components = info.num_components;
  frame->colour = gray ? Colour::gray : Colour::ycc;
  for (int c = 0; c < info.num_components; ++c) {
    const jpeg_component_info& component = info.comp_info[c];
    if (!in_range(component.quant_tbl_no, NUM_QUANT_TBLS)) return false;
    const JQUANT_TBL* quantization = info.quant_tbl_ptrs[component.quant_tbl_no];
    if (quantization == nullptr) return false;
    frame->of[c].horizontal = gray ? 1 : component.h_samp_factor;  // they mean nothing for a single component
    frame->of[c].vertical = gray ? 1 : component.v_samp_factor;
    for (int i = 0; i < kBlockValues; ++i)
      frame->of[c].quantization[i] = static_cast<int16_t>(quantization->quantval[i]);
  }
  return true;
}

void copy(const JHUFF_TBL& from, HuffmanSpec* to) {
  std::memcpy(to->counts, from.bits, sizeof to->counts);
  std::memcpy(to->symbols, from.huffval, sizeof to->symbols);
}

}  // namespace

bool is_plain_scan(const jpeg_decompress_struct& info) {
  if (!has_plain_frame(info) || info.progressive_mode || info.comps_in_scan != info.num_components) return false;
  for (int c = 0; c < info.num_components; ++c)
    if (info.cur_comp_info[c] != &info.comp_info[c]) return false;
  return true;
}

std::span<const uint8_t> unread(const jpeg_decompress_struct& info) {
  return {info.src->next_input_byte, info.src->bytes_in_buffer};
}

std::span<const uint8_t> scans_of(const jpeg_decompress_struct& info) {
  const std::span<const uint8_t> bits = unread(info);
  const size_t header = 8 + 2 * static_cast<size_t>(info.comps_in_scan);
  return {bits.data() - header, bits.size() + header};
}

bool describe_scan(const jpeg_decompress_struct& info, BaselineScan* scan) {
  if (!is_plain_scan(info) || info.restart_interval != 0 || !describe_plain_frame(info, &scan->frame)) return false;
  for (int c = 0; c < info.num_components; ++c) {
    const jpeg_component_info& component = info.comp_info[c];
    if (!in_range(component.dc_tbl_no, NUM_HUFF_TBLS) || !in_range(component.ac_tbl_no, NUM_HUFF_TBLS)) return false;
    const JHUFF_TBL *dc = info.dc_huff_tbl_ptrs[component.dc_tbl_no], *ac = info.ac_huff_tbl_ptrs[component.ac_tbl_no];
    if (dc == nullptr || ac == nullptr) return false;
    copy(*dc, &scan->dc[c]);
    copy(*ac, &scan->ac[c]);
  }
  return true;
}

bool describe_progressive(const jpeg_decompress_struct& info, ProgressiveFrame* start) {
  if (!has_plain_frame(info) || !info.progressive_mode || info.restart_interval != 0 ||
      !describe_plain_frame(info, &start->frame))
    return false;
  for (int c = 0; c < info.num_components; ++c) {
    start->ids[c] = static_cast<uint8_t>(info.comp_info[c].component_id);
    if (std::find(start->ids, start->ids + c, start->ids[c]) != start->ids + c) return false;
  }
  static_assert(kTableSlots == NUM_HUFF_TBLS);
  for (int slot = 0; slot < kTableSlots; ++slot) {
    const JHUFF_TBL *dc = info.dc_huff_tbl_ptrs[slot], *ac = info.ac_huff_tbl_ptrs[slot];
    start->has_dc[slot] = dc != nullptr, start->has_ac[slot] = ac != nullptr;
    if (dc != nullptr) copy(*dc, &start->dc[slot]);
    if (ac != nullptr) copy(*ac, &start->ac[slot]);
  }
  return true;
}

bool describe_frame(const jpeg_decompress_struct& info, Frame* frame) {
  frame->height = static_cast<int32_t>(info.image_height), frame->width = static_cast<int32_t>(info.image_width);
  frame->components = info.num_components;
  int colour = 0;
  while (colour < 5 && kSpaces[colour] != info.jpeg_color_space) ++colour;
  if (colour == 5 || info.num_components > kMaxComponents) return false;
  frame->colour = static_cast<Colour>(colour);
  for (int c = 0; c < info.num_components; ++c) {
    const jpeg_component_info& component = info.comp_info[c];
    if (component.quant_table == nullptr) return false;
    const bool alone = info.num_components == 1;  // factors mean nothing for a single component
    frame->of[c].horizontal = alone ? 1 : component.h_samp_factor;
    frame->of[c].vertical = alone ? 1 : component.v_samp_factor;
    for (int i = 0; i < kBlockValues; ++i)
      frame->of[c].quantization[i] = static_cast<int16_t>(component.quant_table->quantval[i]);
  }
  return frame->is_sound();
}

}  // namespace pass_loader::jpeg
