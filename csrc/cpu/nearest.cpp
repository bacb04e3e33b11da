#include "cpu/nearest.h"

namespace pass_loader::cpu {
namespace {

template <typename Sample>
void copy_pixels(const ConstPlanes& picture, const ViewPlan& plan, const Places& places, float* out) {
  constexpr float kMost = sizeof(Sample) == 2 ? 65535.0f : 255.0f;
  for (int32_t y = 0; y < plan.out_height; ++y, out += plan.out_width) {
    const auto* row = places.rows[y] < 0 ? nullptr : reinterpret_cast<const Sample*>(picture.row(0, places.rows[y]));
    for (int32_t x = 0; x < plan.out_width; ++x)
      out[x] = row == nullptr || places.columns[x] < 0 ? 0.0f : static_cast<float>(row[places.columns[x]]) / kMost;
  }
}

}  // namespace

void nearest(const ConstPlanes& picture, const ViewPlan& plan, PlacesScratch& scratch, float* out) {
  const Places places = nearest_places(plan, picture.deep, scratch);
  (picture.deep ? copy_pixels<uint16_t> : copy_pixels<uint8_t>)(picture, plan, places, out);
}

}  // namespace pass_loader::cpu
