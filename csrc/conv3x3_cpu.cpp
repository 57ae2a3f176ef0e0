// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp.
#include "conv3x3_cpu.h"

#include "conv_winograd.h"

namespace fastdd {
namespace {

template <class T>
struct Groups {
  Grid<T> grid;
  int64_t rows, tiles, step, made;  // rows of tiles, and tiles, of a group

  explicit Groups(const Conv3x3Call& call) : grid(call.height, call.width) {
    const int64_t most = call.dy == nullptr ? T::kGroup : T::kGroup / 2;  // of a tangent there is as much again in the cache
    rows = std::max<int64_t>(1, most / grid.columns);
    tiles = rows * grid.columns;
    step = transformed_step(tiles, call.inputs);
    made = made_step(tiles);
  }

  int64_t scratch() const { return T::kFrequencies * (step + made); }
};

// Rows of tiles first .. first + rows of x, transformed: [frequency, tile, input].
template <class T>
void transform_rows(const Conv3x3Call& call, const Groups<T>& groups, const float* x, int64_t first, int64_t rows,
                    float* transformed) {
  const Grid<T>& grid = groups.grid;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t n = (first + row) / grid.rows, i = (first + row) % grid.rows;
    for (int64_t j = 0; j < grid.columns; ++j) {
      transform_patch(grid, x + n * call.height * call.width * call.inputs, call.inputs, i, j,
                      transformed + (row * grid.columns + j) * call.inputs, groups.step);
    }
  }
}

// The pixels of rows of tiles first .. first + rows, in channels from `channel` on, from their products with a panel.
template <class T>
void output_rows(const Conv3x3Call& call, const Groups<T>& groups, const float* made, int64_t first, int64_t rows, int64_t channel,
                 const float* bias, float* result) {
  const Grid<T>& grid = groups.grid;
  const int64_t outputs = call.outputs;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t n = (first + row) / grid.rows, i = (first + row) % grid.rows;
    float* y = result + (n * call.height + T::kRows * i) * call.width * outputs + channel;
    for (int64_t j = 0; j < grid.columns; ++j) {
      const float* from = made + (row * grid.columns + j) * kPanel;
      const int64_t below = std::min<int64_t>(T::kRows, call.height - T::kRows * i);
      const int64_t beside = std::min<int64_t>(T::kColumns, call.width - T::kColumns * j);
      for_lanes<float>(std::min(kPanel, outputs - channel), [&](int64_t c, auto part) {
        Vec pixels[T::kRows][T::kColumns];
        tile_pixels<T>(from + c, groups.made, pixels);
        const Vec shift = bias == nullptr ? Vec{} : part.load(bias + channel + c);
        for (int64_t r = 0; r < below; ++r) {
          for (int64_t s = 0; s < beside; ++s) {
            part.store(y + (r * call.width + T::kColumns * j + s) * outputs + c, pixels[r][s] + shift);
          }
        }
      });
    }
  }
}

template <class T>
void winograd(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch) {
  const Groups<T> groups(call);
  const int64_t inputs = call.inputs, size = T::kFrequencies * inputs * kPanel;
  float* transformed = scratch;                                   // [frequency, tile, input]
  float* made = transformed + T::kFrequencies * groups.step;      // [frequency, tile, column] of a panel
  float* dtransformed = scratch + groups.scratch();               // the same of the tangents
  float* dmade = dtransformed + T::kFrequencies * groups.step;
  for (int64_t first = begin; first < end; first += groups.rows) {
    const int64_t rows = std::min(groups.rows, end - first), tiles = rows * groups.grid.columns;
    transform_rows(call, groups, call.x, first, rows, transformed);
    if (call.dy != nullptr && call.dx != nullptr) transform_rows(call, groups, call.dx, first, rows, dtransformed);
    for (int64_t panel = 0; panel < panels(call.outputs); ++panel) {
      const float* filters = call.filters + panel * size;
      panel_products<T>(tiles, inputs, transformed, groups.step, filters, made, groups.made, false);
      output_rows(call, groups, made, first, rows, panel * kPanel, call.bias, call.y);
      if (call.dy == nullptr) continue;
      panel_products<T>(tiles, inputs, transformed, groups.step, call.dfilters + panel * size, dmade, groups.made, false);
      if (call.dx != nullptr) panel_products<T>(tiles, inputs, dtransformed, groups.step, filters, dmade, groups.made, true);
      output_rows(call, groups, dmade, first, rows, panel * kPanel, nullptr, call.dy);
    }
  }
}

// Row h of x with the taps of all outputs, [pixel, tap and output].
inline void tap_products(const Conv3x3Call& call, const float* image, int64_t h, float* to, int64_t columns) {
  for (int64_t panel = 0; panel < columns / kPanel; ++panel) {
    product_of(call.width, image + h * call.width * call.inputs, call.inputs, Every{1}, call.inputs,
               call.filters + panel * call.inputs * kPanel, to + panel * kPanel, columns);
  }
}

void gathered(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch) {
  const int64_t outputs = call.outputs, columns = panels(9 * outputs) * kPanel, row = call.width * columns;
  int64_t next = 0;  // row of the image at hand; the three before it lie in scratch, row h in place h % 3
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t n = unit / call.height, h = unit % call.height;
    const float* image = call.x + n * call.height * call.width * call.inputs;
    if (unit == begin || h == 0) next = std::max<int64_t>(0, h - 1);
    for (; next <= std::min(h + 1, call.height - 1); ++next) {
      tap_products(call, image, next, scratch + next % 3 * row, columns);
    }
    float* y = call.y + unit * call.width * outputs;
    for (int64_t w = 0; w < call.width; ++w, y += outputs) {
      float sums[8];
      for (int64_t o = 0; o < outputs; ++o) sums[o] = call.bias == nullptr ? 0 : call.bias[o];
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t above = h + tap / 3 - 1, beside = w + tap % 3 - 1;
        if (above < 0 || above >= call.height || beside < 0 || beside >= call.width) continue;
        const float* from = scratch + above % 3 * row + beside * columns + tap * outputs;
        for (int64_t o = 0; o < outputs; ++o) sums[o] += from[o];
      }
      for (int64_t o = 0; o < outputs; ++o) y[o] = sums[o];
    }
  }
}

void direct(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch) {
  const int64_t inputs = call.inputs, outputs = call.outputs, depth = 9 * inputs, columns = panels(outputs) * kPanel;
  const int64_t row = (call.width + 2) * inputs;
  float* patch = scratch;
  float* made = patch + padded(3 * row);
  int32_t* at = reinterpret_cast<int32_t*>(made + padded(call.width * columns));
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t tap = k / inputs;
    at[k] = static_cast<int32_t>((tap / 3) * row + (tap % 3) * inputs + k % inputs);
  }
  for (int64_t unit = begin; unit < end; ++unit) {
    neighbours(call.x, unit / call.height, unit % call.height, call.height, call.width, inputs, patch);
    float* y = call.y + unit * call.width * outputs;
    float* to = columns == outputs ? y : made;
    for (int64_t panel = 0; panel < panels(outputs); ++panel) {
      product_of(call.width, patch, inputs, at, depth, call.filters + panel * depth * kPanel, to + panel * kPanel, columns);
    }
    if (columns == outputs && call.bias == nullptr) continue;
    for (int64_t j = 0; j < call.width; ++j) {
      for_lanes<float>(outputs, [&](int64_t c, auto part) {
        const Vec bias = call.bias == nullptr ? Vec{} : part.load(call.bias + c);
        part.store(y + j * outputs + c, load(to + j * columns + c) + bias);
      });
    }
  }
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t packed_size(int64_t outputs, int64_t inputs, How how) {
  switch (how) {
    case How::gathered: return inputs * panels(9 * outputs) * kPanel;
    case How::tiles2x2: return 16 * inputs * panels(outputs) * kPanel;
    case How::tiles2x4: return 24 * inputs * panels(outputs) * kPanel;
    default: return 9 * inputs * panels(outputs) * kPanel;
  }
}

// Direct: [panel, tap, input, column]; gathered: [panel, input, column] of columns tap and output; tiles: G g G^T as [panel,
// frequency, input, column]. Columns beyond the last are 0.
void pack_filters(const float* filters, int64_t outputs, int64_t inputs, How how, bool adjoint, int64_t begin, int64_t end,
                  float* packed) {
  const auto taps_of = [&](int64_t o, int64_t c) { return filters + (adjoint ? c * outputs + o : o * inputs + c) * 9; };
  if (how == How::gathered) {
    for (int64_t column = 0; column < panels(9 * outputs) * kPanel; ++column) {
      const int64_t tap = column / outputs, o = column % outputs;
      float* to = packed + column / kPanel * inputs * kPanel + column % kPanel;
      for (int64_t c = begin; c < end; ++c) to[c * kPanel] = tap < 9 ? taps_of(o, c)[adjoint ? 8 - tap : tap] : 0;
    }
    return;
  }
  for (int64_t panel = 0; panel < panels(outputs); ++panel) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t column = 0; column < kPanel; column += kLanes) {
        alignas(64) float taps[9][kLanes] = {};
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const int64_t o = panel * kPanel + column + lane;
          if (o >= outputs) break;
          const float* g = taps_of(o, c);
          for (int tap = 0; tap < 9; ++tap) taps[tap][lane] = g[adjoint ? 8 - tap : tap];
        }
        if (how == How::tiles2x2) {
          transform_taps<Tiles2x2>(taps, packed + (panel * 16 * inputs + c) * kPanel + column, inputs * kPanel);
        } else if (how == How::tiles2x4) {
          transform_taps<Tiles2x4>(taps, packed + (panel * 24 * inputs + c) * kPanel + column, inputs * kPanel);
        } else {
          for (int tap = 0; tap < 9; ++tap) {
            store(packed + ((panel * 9 + tap) * inputs + c) * kPanel + column, load(taps[tap]));
          }
        }
      }
    }
  }
}

int64_t conv3x3_scratch(const Conv3x3Call& call) {
  const int64_t sides = call.dy == nullptr ? 1 : 2;
  switch (call.how) {
    case How::gathered: return 3 * call.width * panels(9 * call.outputs) * kPanel;
    case How::tiles2x2: return sides * Groups<Tiles2x2>(call).scratch();
    case How::tiles2x4: return sides * Groups<Tiles2x4>(call).scratch();
    default:
      return padded(3 * (call.width + 2) * call.inputs) + padded(call.width * panels(call.outputs) * kPanel) + padded(9 * call.inputs);
  }
}

void conv3x3_units(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.how) {
    case How::gathered: return gathered(call, begin, end, scratch);
    case How::tiles2x2: return winograd<Tiles2x2>(call, begin, end, scratch);
    case How::tiles2x4: return winograd<Tiles2x4>(call, begin, end, scratch);
    default: direct(call, begin, end, scratch);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
