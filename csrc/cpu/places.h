// Which row or column of a picture each one of a view shows, where no filter runs: padded windows and nearest pixels.
#pragma once
#include <algorithm>

#include "image.h"
#include "plan.h"

namespace pass_loader::cpu {

struct PlacesScratch {
  Scratch<int32_t> rows, columns, inputs;
};

// For each row or column of the view, in its order, the source's; -1: none.
struct Places {
  const int32_t* rows;
  const int32_t* columns;
};

// The same, to be changed by who asked for them.
struct WindowPlaces {
  int32_t* rows;
  int32_t* columns;
};

// Returns the places in the resized picture, which the window may leave.
WindowPlaces window_places(const ViewPlan& plan, PlacesScratch& scratch);

// Returns the places in the picture of a view whose pixels are the nearest ones, through crop box, resizes and window.
// deep: the picture has 16 bits, for which Pillow rounds otherwise.
Places nearest_places(const ViewPlan& plan, bool deep, PlacesScratch& scratch);

// Copies the pixels of one plane; those of no place become `ground`.
template <typename Sample>
void copy_places(const ConstPlanes& from, int plane, const Places& places, Sample ground, const Planes& out) {
  for (int32_t y = 0; y < out.height; ++y) {
    auto* to = reinterpret_cast<Sample*>(out.row(plane, y));
    if (places.rows[y] < 0) {
      std::fill_n(to, out.width, ground);
      continue;
    }
    const auto* row = reinterpret_cast<const Sample*>(from.row(plane, places.rows[y]));
    for (int32_t x = 0; x < out.width; ++x) to[x] = places.columns[x] < 0 ? ground : row[places.columns[x]];
  }
}

}  // namespace pass_loader::cpu
