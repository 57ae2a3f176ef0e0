// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp.
#include "conv3x3_cpu.h"

#include "conv_winograd.h"

namespace fastdd {
namespace {

// Tiles of a block of the weight gradient: its pixels stay in the core's cache while one frequency after the other is made.
constexpr int64_t kBlockTiles = 128;
// Rows of the weight gradient's products: they divide a vector of input channels.
constexpr int kWeightRows = kLanes >= 16 ? 8 : 4;
// Filter taps of the direct weight gradient that are made at once.
constexpr int kTaps = 9;

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

// Row h of image n and its neighbours with padding, [3, width + 2, inputs].
inline void neighbours(const float* x, int64_t n, int64_t h, int64_t height, int64_t width, int64_t inputs, float* to) {
  const int64_t row = (width + 2) * inputs;
  for (int64_t r = 0; r < 3; ++r) {
    if (h + r < 1 || h + r > height || inputs == 0) {  // without channels x has no memory to copy from
      std::memset(to + r * row, 0, row * sizeof(float));
      continue;
    }
    std::memset(to + r * row, 0, inputs * sizeof(float));
    std::memcpy(to + r * row + inputs, x + (n * height + h + r - 1) * width * inputs, width * inputs * sizeof(float));
    std::memset(to + (r + 1) * row - inputs, 0, inputs * sizeof(float));
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

// What of the weight gradient's memory is where. Winograd: sums are [16, panel, input, column]; v, the transformed x of a block of
// tiles in one frequency, [vector of inputs, tile, lane], and u, of g, [panel, tile, column]. Directly, sums are
// [part, 9 inputs, column].
struct WeightSizes {
  int64_t tile_rows, tile_columns, rows, tiles, vectors, columns;

  explicit WeightSizes(const Conv3x3WeightCall& call)
      : tile_rows((call.height + 1) / 2), tile_columns((call.width + 1) / 2),
        rows(kBlockTiles / tile_columns > 0 ? kBlockTiles / tile_columns : 1), tiles(rows * tile_columns),
        vectors((call.inputs + kLanes - 1) / kLanes), columns(panels(call.outputs) * kPanel) {
    if (rows > call.images * tile_rows) rows = call.images * tile_rows;
  }

  int64_t frequency() const { return columns * vectors * kLanes; }
};

// Row r of B^T d is d[first] + sign d[second]; of A g it is near g[0] + far g[1].
struct Frequency {
  int first, second;
  float sign, near, far;
};
constexpr Frequency kFrequencies[4] = {{0, 2, -1, 1, 0}, {1, 2, 1, 1, 1}, {2, 1, -1, 1, -1}, {1, 3, -1, 0, -1}};

// One frequency of tile (i, j): of the 4x4 pixels of x around it to v, and of its 2x2 pixels of g to u.
inline void transform_tile(const Conv3x3WeightCall& call, const float* x, const float* g, int64_t i, int64_t j, int f,
                           const float* zeros, int64_t tiles, float* v, float* u) {
  const Frequency &down = kFrequencies[f / 4], &across = kFrequencies[f % 4];
  const auto pixel = [&](const float* image, int64_t channels, int64_t h, int64_t w) {
    return h >= 0 && h < call.height && w >= 0 && w < call.width ? image + (h * call.width + w) * channels : zeros;
  };
  const int64_t h0 = 2 * i - 1 + down.first, h1 = 2 * i - 1 + down.second;
  const int64_t w0 = 2 * j - 1 + across.first, w1 = 2 * j - 1 + across.second;
  const float *d00 = pixel(x, call.inputs, h0, w0), *d01 = pixel(x, call.inputs, h0, w1);
  const float *d10 = pixel(x, call.inputs, h1, w0), *d11 = pixel(x, call.inputs, h1, w1);
  for_lanes<float>(call.inputs, [&](int64_t c, auto part) {
    const Vec above = part.load(d00 + c) + across.sign * part.load(d01 + c);
    const Vec below = part.load(d10 + c) + across.sign * part.load(d11 + c);
    store(v + c * tiles, above + down.sign * below);
  });
  const float *g00 = pixel(g, call.outputs, 2 * i, 2 * j), *g01 = pixel(g, call.outputs, 2 * i, 2 * j + 1);
  const float *g10 = pixel(g, call.outputs, 2 * i + 1, 2 * j), *g11 = pixel(g, call.outputs, 2 * i + 1, 2 * j + 1);
  for_lanes<float>(call.outputs, [&](int64_t c, auto part) {
    const Vec above = across.near * part.load(g00 + c) + across.far * part.load(g01 + c);
    const Vec below = across.near * part.load(g10 + c) + across.far * part.load(g11 + c);
    store(u + (c / kPanel) * tiles * kPanel + c % kPanel, down.near * above + down.far * below);
  });
}

template <bool Add>
void weight_products(const WeightSizes& sizes, int64_t depth, const float* v, const float* u, float* sums) {
  for (int64_t panel = 0; panel < sizes.columns / kPanel; ++panel) {
    for (int64_t i = 0; i < sizes.vectors * kLanes; i += kWeightRows) {
      product<kWeightRows, Add>(v + (i / kLanes) * sizes.tiles * kLanes + i % kLanes, 1, Every{kLanes}, depth,
                                u + panel * sizes.tiles * kPanel, sums, kPanel);
      sums += kWeightRows * kPanel;
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

int64_t conv3x3_weight_sums(const Conv3x3WeightCall& call) {
  const WeightSizes sizes(call);
  return call.winograd() ? 16 * sizes.frequency() : call.parts() * 9 * call.inputs * sizes.columns;
}

int64_t conv3x3_weight_scratch(const Conv3x3WeightCall& call) {
  const WeightSizes sizes(call);
  if (call.winograd()) {
    return sizes.vectors * sizes.tiles * kLanes + sizes.columns * sizes.tiles + padded(call.inputs) + padded(call.outputs);
  }
  return padded(3 * (call.width + 2) * call.inputs) + padded(call.width * sizes.columns) + padded(9 * call.inputs);
}

void conv3x3_weight_winograd(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* scratch) {
  const WeightSizes sizes(call);
  float* v = scratch;
  float* u = v + sizes.vectors * sizes.tiles * kLanes;
  float* zeros = u + sizes.columns * sizes.tiles;
  std::memset(zeros, 0, (padded(call.inputs) + padded(call.outputs)) * sizeof(float));
  const int64_t all = call.images * sizes.tile_rows, pixels = call.height * call.width;
  const int64_t both = call.x2 == nullptr ? all : 2 * all;  // one pair after the other
  for (int64_t start = 0; start < both;) {
    const bool second = start >= all;
    const int64_t first = second ? start - all : start;
    const float *x_of = second ? call.x2 : call.x, *g_of = second ? call.g2 : call.g;
    const int64_t rows = all - first < sizes.rows ? all - first : sizes.rows, depth = rows * sizes.tile_columns;
    for (int64_t f = begin; f < end; ++f) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t n = (first + row) / sizes.tile_rows, i = (first + row) % sizes.tile_rows;
        for (int64_t j = 0; j < sizes.tile_columns; ++j) {
          const int64_t tile = row * sizes.tile_columns + j;
          transform_tile(call, x_of + n * pixels * call.inputs, g_of + n * pixels * call.outputs, i, j, static_cast<int>(f), zeros,
                         sizes.tiles, v + tile * kLanes, u + tile * kPanel);
        }
      }
      float* sums = call.sums + f * sizes.frequency();
      if (start == 0) {
        weight_products<false>(sizes, depth, v, u, sums);
      } else {
        weight_products<true>(sizes, depth, v, u, sums);
      }
    }
    start += rows;
  }
}

void conv3x3_weight_direct(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* sums, float* scratch) {
  const int64_t inputs = call.inputs, outputs = call.outputs, depth = 9 * inputs, columns = panels(outputs) * kPanel;
  const int64_t row = (call.width + 2) * inputs;
  float* patch = scratch;
  float* gradients = patch + padded(3 * row);
  int32_t* at = reinterpret_cast<int32_t*>(gradients + padded(call.width * columns));
  for (int64_t k = 0; k < depth; ++k) {
    const int64_t tap = k % 9;
    at[k] = static_cast<int32_t>((tap / 3) * row + (tap % 3) * inputs + k / 9);
  }
  for (int64_t unit = begin * call.height; unit < end * call.height; ++unit) {
    neighbours(call.x, unit / call.height, unit % call.height, call.height, call.width, inputs, patch);
    const float* g = call.g + unit * call.width * outputs;
    if (columns != outputs) {
      for (int64_t j = 0; j < call.width; ++j) std::memcpy(gradients + j * columns, g + j * outputs, outputs * sizeof(float));
      g = gradients;
    }
    for (int64_t panel = 0; panel < panels(outputs); ++panel) {
      for (int64_t k = 0; k < depth; k += kTaps) {
        const float* pixel[kTaps];
        for (int m = 0; m < kTaps; ++m) pixel[m] = patch + at[k + m];
        Vec sum[kTaps][2] = {};
        for (int64_t j = 0; j < call.width; ++j) {
          const float* from = g + j * columns + panel * kPanel;
          const Vec g0 = load(from), g1 = load(from + kLanes);
          for (int m = 0; m < kTaps; ++m) {
            const Vec value = every_lane(pixel[m][j * inputs]);
            sum[m][0] += value * g0;
            sum[m][1] += value * g1;
          }
        }
        for (int m = 0; m < kTaps; ++m) {
          float* to = sums + (k + m) * columns + panel * kPanel;
          store(to, load(to) + sum[m][0]);
          store(to + kLanes, load(to + kLanes) + sum[m][1]);
        }
      }
    }
  }
}

void conv3x3_weight_finish(const Conv3x3WeightCall& call, int64_t begin, int64_t end) {
  const WeightSizes sizes(call);
  const int64_t inputs = call.inputs, outputs = call.outputs, columns = sizes.columns;
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t o = 0; o < outputs; o += kLanes) {
      alignas(64) float taps[9][kLanes];
      if (call.winograd()) {
        // G^T m G
        const float* from = call.sums + (o / kPanel * sizes.vectors * kLanes + c) * kPanel + o % kPanel;
        const int64_t step = sizes.frequency();
        Vec t[3][4];
        for (int s = 0; s < 4; ++s) {
          const Vec m0 = load(from + s * step), m1 = load(from + (4 + s) * step);
          const Vec m2 = load(from + (8 + s) * step), m3 = load(from + (12 + s) * step);
          const Vec half = 0.5f * (m1 + m2);
          t[0][s] = m0 + half;
          t[1][s] = 0.5f * (m1 - m2);
          t[2][s] = half + m3;
        }
        for (int r = 0; r < 3; ++r) {
          const Vec half = 0.5f * (t[r][1] + t[r][2]);
          store(taps[3 * r], t[r][0] + half);
          store(taps[3 * r + 1], 0.5f * (t[r][1] - t[r][2]));
          store(taps[3 * r + 2], half + t[r][3]);
        }
      } else {
        for (int tap = 0; tap < 9; ++tap) {
          Vec sum = {};
          for (int64_t part = 0; part < call.parts(); ++part) {
            sum += load(call.sums + (part * 9 * inputs + 9 * c + tap) * columns + o);
          }
          store(taps[tap], sum);
        }
      }
      for (int64_t lane = 0; lane < kLanes && o + lane < outputs; ++lane) {
        float* to = call.filters + ((o + lane) * inputs + c) * 9;
        for (int tap = 0; tap < 9; ++tap) to[tap] = taps[tap][lane];
      }
    }
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
