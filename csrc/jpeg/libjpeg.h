// What every use of libjpeg here shares: errors that jump back, and a source that has all its bytes.
#pragma once
#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <span>

#include <jpeglib.h>

namespace pass_loader::jpeg {

struct ErrorManager {
  jpeg_error_mgr base;
  jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] inline void on_error(j_common_ptr info) {
  auto* manager = reinterpret_cast<ErrorManager*>(info->err);
  info->err->format_message(info, manager->message);
  std::longjmp(manager->jump, 1);
}

inline ErrorManager make_error_manager() {
  ErrorManager manager{};
  jpeg_std_error(&manager.base);
  manager.base.error_exit = on_error;
  manager.base.output_message = [](j_common_ptr) {};
  return manager;
}

// Never invents an end: asking for more suspends libjpeg, and a decoder that suspends has been given a truncated file.
// Pillow's source (JpegDecode.c) behaves so when its file ends.
inline jpeg_source_mgr make_source(std::span<const uint8_t> bytes) {
  jpeg_source_mgr source{};
  source.init_source = source.term_source = [](j_decompress_ptr) {};
  source.fill_input_buffer = [](j_decompress_ptr) -> boolean { return FALSE; };
  source.skip_input_data = [](j_decompress_ptr info, long count) {
    if (count <= 0) return;
    const size_t skipped = std::min(static_cast<size_t>(count), info->src->bytes_in_buffer);
    info->src->next_input_byte += skipped;
    info->src->bytes_in_buffer -= skipped;
  };
  source.resync_to_restart = jpeg_resync_to_restart;
  source.next_input_byte = bytes.data();
  source.bytes_in_buffer = bytes.size();
  return source;
}

}  // namespace pass_loader::jpeg
