// Decodes JPEG to planar RGB, with the bytes of Pillow's Image.open(...).convert("RGB"), and a gray file to one plane,
// as mode "L": by libjpeg-turbo with its accurate integer IDCT and smooth upsampling, and Pillow's own CMYK conversion,
// without Exif rotation.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "entry_points.h"
#include "image.h"

namespace pass_loader::jpeg {

// A file may repeat scans endlessly in few bytes. No encoder writes nearly so many, unless it is told to.
constexpr int kMaxScans = 500;
// Pixels times scans, about two seconds of work. A picture of kMaxPixels may have 22 scans. Progressive encoders write
// about 10, and cameras one.
constexpr int64_t kMaxScannedPixels = 4'000'000'000;

// Throws Error(record) if a JPEG file of this size has more scans than the limit, see Limits. Reads all of the file.
void check_scans(std::span<const uint8_t> bytes, int32_t height, int32_t width, int max_scans);

// Each thread has its own. It owns the decoded picture. libjpeg's decompressor is made anew for each picture: a reused
// one would keep the previous file's tables, and decode a file that lacks some with them.
class Decoder {
 public:
  // libjpeg_alone: uses neither BaselineDecoder nor ProgressiveDecoder. For tests, which compare them.
  explicit Decoder(bool libjpeg_alone = false);
  ~Decoder();

  // Decodes a JPEG file or a record of the codec "dct". kStreamPadding readable bytes must follow it. The result is
  // valid until the next call. max_scans: see Limits. Throws Error(record) for more scans, and for what Pillow refuses:
  // broken or truncated files, too many pixels.
  // part: if not null, the pixels outside of its window, which lies in the picture, may be undefined, and errors there
  // may be missed. Entry points are used if they fit.
  ConstPlanes decode(std::span<const uint8_t> bytes, int max_scans = 0, const Part* part = nullptr);

  // Decodes it whole. Returns true if there was no warning either. points: gets the entry points of what
  // BaselineDecoder takes; else nothing. Throws as `decode`.
  bool prove(std::span<const uint8_t> bytes, int max_scans, std::vector<uint8_t>* points);

  // Reads a JPEG file up to its first scan. Returns true if it is one baseline scan of gray or YCbCr, with factors up
  // to 2 x 2 for luma and 1 x 1 for colour.
  bool is_plain(std::span<const uint8_t> bytes);

  // Returns the bytes of a record in the form for a GPU (gpu_form.h); 0 if GPUs do not take it: they take records of
  // the codec "dct" and JPEGs that BaselineDecoder takes, with their entry points. Throws Error(record).
  size_t form_bytes(std::span<const uint8_t> bytes, std::span<const uint8_t> points);
  // Writes the form of the record that form_bytes has just been called for. Returns false if `decode` refuses it.
  bool write_form(std::span<const uint8_t> bytes, std::span<const uint8_t> points, uint8_t* out);

  // Return true if that decoder took the last picture; if BaselineDecoder did so from entry points. For tests.
  bool by_baseline() const;
  bool by_progressive() const;
  bool from_points() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace pass_loader::jpeg
