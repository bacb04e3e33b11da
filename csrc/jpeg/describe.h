// What libjpeg has read of a file before its first scan, in our own terms. Its tables are row-major in memory, as ours
// and as its coefficients.
#pragma once
#include "jpeg/baseline.h"
#include "jpeg/frame.h"
#include "jpeg/libjpeg.h"
#include "jpeg/progressive.h"

namespace pass_loader::jpeg {

constexpr J_COLOR_SPACE kSpaces[] = {JCS_GRAYSCALE, JCS_YCbCr, JCS_RGB, JCS_CMYK, JCS_YCCK};  // in the order of Colour

// See Decoder::is_plain.
bool is_plain_scan(const jpeg_decompress_struct& info);

// Returns what libjpeg has not read. After a scan's header: its bits, and all that follows.
std::span<const uint8_t> unread(const jpeg_decompress_struct& info);

// Returns everything from a scan's marker on, whose header libjpeg has just read.
std::span<const uint8_t> scans_of(const jpeg_decompress_struct& info);

// Returns true if BaselineDecoder may try the file.
bool describe_scan(const jpeg_decompress_struct& info, BaselineScan* scan);

// Returns true if ProgressiveDecoder may try the file.
bool describe_progressive(const jpeg_decompress_struct& info, ProgressiveFrame* start);

// Returns true if it is a frame of a colour and factors that we know. Quantisation tables are there if libjpeg has read
// the coefficients, or where the file has them before its first scan.
bool describe_frame(const jpeg_decompress_struct& info, Frame* frame);

}  // namespace pass_loader::jpeg
