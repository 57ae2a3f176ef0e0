// One image decoded, and the transpose: for *_cpu.cpp, where everything has internal linkage.
//
// A part is copied beside its padding, enlarged row by row (columns are looked up), and then whole rows are blended. The
// transpose first adds rows of the result up to rows of the part, then looks up columns.
#pragma once

#include <cstdint>
#include <cstring>

#include "formation_cpu.h"
#include "lanes.h"

namespace fastdd {
namespace {

inline int clamp_to(int value, int most) { return value < 0 ? 0 : value > most ? most : value; }

// Elements of T that enlarge() and shrink() work in.
inline int64_t formation_scratch(const FormationCall& call) {
  const Formation& f = call.f;
  return int64_t(f.rows) * f.columns + int64_t(f.rows) * (f.out_width + call.taps);
}

// out [C, H', W'] = decoded image n of In's, computed in T.
template <class T, class In>
void enlarge(const FormationCall& call, int64_t n, T* scratch, T* out) {
  const Formation& f = call.f;
  const Address a = address_of(f, n);
  const int rows = clamp_to(f.height - a.row, f.rows), columns = clamp_to(f.width - a.column, f.columns);
  const int width = f.out_width;
  T* const tile = scratch;
  T* const wide = scratch + int64_t(f.rows) * f.columns;
  const T* const weight = static_cast<const T*>(call.column_weight);
  const bool same = f.rows == f.out_height && f.columns == width;
  for (int c = 0; c < call.channels; ++c, out += int64_t(f.out_height) * width) {
    const In* in = static_cast<const In*>(call.in) + ((a.image * call.channels + c) * f.height + a.row) * f.width + a.column;
    const T fill = f.fill == nullptr ? T(0) : static_cast<T>(f.fill[c]);
    T* const part = same ? out : tile;
    for (int r = 0; r < f.rows; ++r) {
      const int valid = r < rows ? columns : 0;
      T* const to = part + int64_t(r) * f.columns;
      if (valid > 0) {
        for_lanes<In>(valid, [&](int64_t i, auto lanes) { lanes.store(to + i, lanes.load(in + int64_t(r) * f.width + i)); });
      }
      for (int i = valid; i < f.columns; ++i) to[i] = fill;
    }
    if (same) continue;
    for (int r = 0; r < f.rows; ++r) {
      const T* const from = tile + int64_t(r) * f.columns;
      T* __restrict to = wide + int64_t(r) * width;
      for (int x = 0; x < width; ++x) {
        const T low = from[call.column_low[x]], high = from[call.column_high[x]];
        to[x] = low + weight[x] * (high - low);
      }
    }
    for (int y = 0; y < f.out_height; ++y) {
      const T* const above = wide + int64_t(call.row_low[y]) * width;
      const T* const below = wide + int64_t(call.row_high[y]) * width;
      const T w = static_cast<const T*>(call.row_weight)[y];
      T* __restrict to = out + int64_t(y) * width;
      for (int x = 0; x < width; ++x) to[x] = above[x] + w * (below[x] - above[x]);
    }
  }
}

// total [C, H, W] += the transpose of enlarge() of image n without its padding, of g [C, H', W'].
template <class T>
void shrink(const FormationCall& call, int64_t n, const T* g, T* scratch, T* total) {
  const Formation& f = call.f;
  const Address a = address_of(f, n);
  const int rows = clamp_to(f.height - a.row, f.rows), columns = clamp_to(f.width - a.column, f.columns);
  const int width = f.out_width, pitch = width + call.taps;
  if (rows == 0 || columns == 0) return;
  T* const wide = scratch + int64_t(f.rows) * f.columns;
  const T* const back = static_cast<const T*>(call.back);
  for (int c = 0; c < call.channels; ++c, total += int64_t(f.height) * f.width) {
    std::memset(wide, 0, sizeof(T) * f.rows * pitch);
    for (int y = 0; y < f.out_height; ++y, g += width) {
      const int low = call.row_low[y], high = call.row_high[y];
      const T w = static_cast<const T*>(call.row_weight)[y];
      T* __restrict above = wide + int64_t(low) * pitch;
      if (low == high) {
        for (int x = 0; x < width; ++x) above[x] += g[x];
        continue;
      }
      T* __restrict below = wide + int64_t(high) * pitch;
      for (int x = 0; x < width; ++x) {
        above[x] += (T(1) - w) * g[x];
        below[x] += w * g[x];
      }
    }
    for (int r = 0; r < rows; ++r) {
      const T* const from = wide + int64_t(r) * pitch;
      T* __restrict to = total + int64_t(a.row + r) * f.width + a.column;
      for (int k = 0; k < call.taps; ++k) {
        const T* const weights = back + int64_t(k) * f.columns;
        for (int j = 0; j < columns; ++j) to[j] += weights[j] * from[call.first[j] + k];
      }
    }
  }
}

}  // namespace
}  // namespace fastdd
