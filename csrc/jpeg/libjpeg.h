// What all uses of libjpeg here share: errors that jump back, and a source with all its bytes in memory.
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

// The source never invents an end of image. A request for more bytes suspends libjpeg, and that means that the file is
// truncated. Pillow's source (JpegDecode.c) does the same at the end of its file.
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
