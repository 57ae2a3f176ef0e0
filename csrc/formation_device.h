// A pixel of a decoded image, for formation.cu and for augment.cu, which decodes on the way. Only for .cu files.
#pragma once

#include "device_values.h"
#include "formation_math.h"

namespace fastdd {
namespace {

// Pixel (x, y) of channel c of a decoded image.
template <class T, class In>
__device__ T decoded_at(const Formation& f, const In* in, const Address& a, int channels, int c, int x, int y) {
  const Tap<T> across = tap_of<T>(x, f.columns, f.out_width), down = tap_of<T>(y, f.rows, f.out_height);
  const In* plane = in + (a.image * channels + c) * f.height * f.width;
  const T fill = f.fill == nullptr ? T(0) : static_cast<T>(f.fill[c]);
  const auto at = [&](int row, int column) {
    row += a.row;
    column += a.column;
    return row < f.height && column < f.width ? static_cast<T>(value_of(plane[static_cast<int64_t>(row) * f.width + column])) : fill;
  };
  const T p00 = at(down.low, across.low), p01 = at(down.low, across.high);
  const T p10 = at(down.high, across.low), p11 = at(down.high, across.high);
  const T above = p00 + across.weight * (p01 - p00), below = p10 + across.weight * (p11 - p10);
  return above + down.weight * (below - above);
}

}  // namespace
}  // namespace fastdd
