// Pictures in the form that a GPU decodes (../gpu_form.h). Of a record of the codec "dct", zstd's layer is taken off,
// and lengths become places; a JPEG with entry points gets its tables made ready. No coefficient is looked at.
#pragma once
#include <cstddef>
#include <cstdint>

#include "gpu_form.h"
#include "image.h"
#include "jpeg/baseline.h"
#include "jpeg/dct_codec.h"
#include "jpeg/zstd_stream.h"

namespace pass_loader::jpeg {

// Returns the bytes of the record's form; 0 if GPUs do not take such a picture: they take gray, and YCbCr whose luma
// has the picture's size and whose other components have both the same, halved or not in each direction.
size_t form_bytes(const DctRecord& record);

// Each thread has its own and reuses it.
class FormWriter {
 public:
  // Writes form_bytes, not 0, at a multiple of DctForm::kAlign. Returns false if a frame of zstd is bad or the lengths
  // contradict the streams: then DctDecoder refuses the record, and says why.
  bool write(const DctRecord& record, uint8_t* out);

 private:
  Scratch<uint8_t> lengths_;
  ZstdReader zstd_;
};

// Returns the bytes of a scan's form; 0 if its Huffman tables are none that BaselineDecoder takes, or if there is not
// an entry point for each row of MCUs. entropy: everything after the scan's header. points: see Proof.
size_t form_bytes(const BaselineScan& scan, std::span<const uint8_t> entropy, std::span<const uint8_t> points);

// Writes form_bytes, not 0, at a multiple of GpuForm::kAlign.
void write_form(const BaselineScan& scan, std::span<const uint8_t> entropy, std::span<const uint8_t> points,
                uint8_t* out);

}  // namespace pass_loader::jpeg
