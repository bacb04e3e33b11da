// Point operations: what becomes of a byte, whatever lies around it. Several that follow each other are one table for
// each plane, and a histogram of what a table gives follows from that of the pixels.
#pragma once
#include <array>
#include <cstdint>

#include "cpu/jitter.h"

namespace pass_loader::cpu {

using PointTable = std::array<uint8_t, 256>;
using Histogram = std::array<uint32_t, 256>;

// Pending point operations on a view's planes.
class Points {
 public:
  explicit Points(const ViewPixels& view) : view_(view) {}

  // Each is done after all before it. ImageOps and ImageEnhance of Pillow.
  void autocontrast();
  void equalize();
  void invert();
  void posterize(int bits);
  void solarize(int threshold);
  void solarize_add(int amount);  // timm's: x + amount, at most 255, for x < 128
  void brightness(float factor);
  void contrast(float factor);

  // Writes what is pending into the pixels.
  void apply();
  // The pixels lie elsewhere. Nothing may be pending.
  void look_at(const ViewPixels& view) { view_ = view; }

 private:
  template <typename Map>
  void each(const Map& map);
  template <typename Table>
  void by_histogram(const Table& table_of);

  ViewPixels view_;
  bool pending_ = false, counted_ = false;
  std::array<PointTable, 3> tables_;
  std::array<Histogram, 3> histograms_;  // of the pixels without what is pending
};

}  // namespace pass_loader::cpu
