// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp.
#include "conv3x3_cpu.h"

#include "conv_tiles.h"

namespace fastdd {
namespace {

// Tiles of a Winograd product that share a pass over the filters.
constexpr int64_t kGroupTiles = 64;
// Rows of the weight gradient's products: they divide a vector of input channels.
constexpr int kWeightRows = kLanes >= 16 ? 8 : 4;
// Filter taps of the direct weight gradient that are made at once.
constexpr int kTaps = 9;

// A^T m A of 4x4 products to 2x2 pixels.
inline void output_pixels(const Vec (&m)[16], Vec (&y)[4]) {
  Vec rows[2][4];
  for (int s = 0; s < 4; ++s) {
    rows[0][s] = m[s] + m[4 + s] + m[8 + s];
    rows[1][s] = m[4 + s] - m[8 + s] - m[12 + s];
  }
  for (int r = 0; r < 2; ++r) {
    y[2 * r] = rows[r][0] + rows[r][1] + rows[r][2];
    y[2 * r + 1] = rows[r][1] - rows[r][2] - rows[r][3];
  }
}

struct Groups {
  int64_t columns, tile_rows, tile_columns, rows, tiles, v_step, m_step;

  explicit Groups(const Conv3x3Call& call)
      : columns(panels(call.outputs) * kPanel), tile_rows((call.height + 1) / 2), tile_columns((call.width + 1) / 2),
        rows(kGroupTiles / tile_columns > 0 ? kGroupTiles / tile_columns : 1), tiles(rows * tile_columns),
        // Not a power of two apart, which would put all 16 into the same cache set.
        v_step(padded(tiles * call.inputs) + 16), m_step(tiles * columns + 16) {}
};

void winograd(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch) {
  const Groups groups(call);
  const int64_t inputs = call.inputs, outputs = call.outputs, columns = groups.columns;
  float* transformed = scratch;                           // [16, tiles, inputs]
  float* products = transformed + 16 * groups.v_step;     // [16, tiles, columns]
  for (int64_t first = begin; first < end; first += groups.rows) {
    const int64_t rows = end - first < groups.rows ? end - first : groups.rows;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t n = (first + row) / groups.tile_rows, i = (first + row) % groups.tile_rows;
      const float* x = call.x + n * call.height * call.width * inputs;
      for (int64_t j = 0; j < groups.tile_columns; ++j) {
        float* to = transformed + (row * groups.tile_columns + j) * inputs;
        for (int64_t c = 0; c < inputs; c += kLanes) {
          // The last vector is moved back over channels already done rather than cut.
          const int64_t channel = c + kLanes <= inputs ? c : inputs - kLanes;
          transform_patch(x, call.height, call.width, inputs, i, j, channel, Whole{},
                          [&](int f, Vec v) { store(to + f * groups.v_step + channel, v); });
        }
      }
    }
    for (int f = 0; f < 16; ++f) {
      for (int64_t panel = 0; panel < panels(outputs); ++panel) {
        product_of(rows * groups.tile_columns, transformed + f * groups.v_step, inputs, Every{1}, inputs,
                   call.filters + (f * panels(outputs) + panel) * inputs * kPanel,
                   products + f * groups.m_step + panel * kPanel, columns);
      }
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t n = (first + row) / groups.tile_rows, i = (first + row) % groups.tile_rows;
      float* y = call.y + (n * call.height + 2 * i) * call.width * outputs;
      for (int64_t j = 0; j < groups.tile_columns; ++j) {
        const float* from = products + (row * groups.tile_columns + j) * columns;
        for_lanes<float>(outputs, [&](int64_t c, auto part) {
          Vec m[16], pixels[4];
          for (int f = 0; f < 16; ++f) m[f] = load(from + f * groups.m_step + c);
          output_pixels(m, pixels);
          const Vec bias = call.bias == nullptr ? Vec{} : part.load(call.bias + c);
          for (int64_t r = 0; r < 2 && 2 * i + r < call.height; ++r) {
            for (int64_t s = 0; s < 2 && 2 * j + s < call.width; ++s) {
              part.store(y + (r * call.width + 2 * j + s) * outputs + c, pixels[2 * r + s] + bias);
            }
          }
        });
      }
    }
  }
}

// Row h of image n and its neighbours with padding, [3, width + 2, inputs].
inline void neighbours(const float* x, int64_t n, int64_t h, int64_t height, int64_t width, int64_t inputs, float* to) {
  const int64_t row = (width + 2) * inputs;
  for (int64_t r = 0; r < 3; ++r) {
    if (h + r < 1 || h + r > height) {
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

// The weight gradient's arrays: v is [16, vector of inputs, tile, lane], u [16, panel, tile, column], sums
// [16, panel, input, column]; directly, sums are [part, 9 inputs, column].
struct WeightSizes {
  int64_t tiles, vectors, columns, v_step, u_step;

  explicit WeightSizes(const Conv3x3WeightCall& call)
      : tiles(call.block_rows() * call.tile_columns()), vectors((call.inputs + kLanes - 1) / kLanes),
        columns(panels(call.outputs) * kPanel), v_step(vectors * tiles * kLanes + 16), u_step(columns * tiles + 16) {}
};

template <bool Add>
void weight_products(const Conv3x3WeightCall& call, int64_t rows, int64_t begin, int64_t end) {
  const WeightSizes sizes(call);
  const int64_t count = panels(call.outputs), depth = rows * call.tile_columns();
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t f = unit / count, panel = unit % count;
    const float* u = call.u + f * sizes.u_step + panel * sizes.tiles * kPanel;
    float* sums = call.sums + unit * sizes.vectors * kLanes * kPanel;
    for (int64_t i = 0; i < sizes.vectors * kLanes; i += kWeightRows) {
      const float* v = call.v + f * sizes.v_step + (i / kLanes) * sizes.tiles * kLanes + i % kLanes;
      product<kWeightRows, Add>(v, 1, Every{kLanes}, depth, u, sums + i * kPanel, kPanel);
    }
  }
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t packed_size(int64_t outputs, int64_t inputs, bool winograd) {
  return (winograd ? 16 : 9) * inputs * panels(outputs) * kPanel;
}

// Direct: [panel, tap, input, column]; Winograd: G g G^T as [frequency, panel, input, column]. Columns beyond the last output are 0.
void pack_filters(const float* filters, int64_t outputs, int64_t inputs, bool winograd, bool adjoint, int64_t begin, int64_t end,
                  float* packed) {
  const int64_t count = panels(outputs);
  for (int64_t panel = 0; panel < count; ++panel) {
    for (int64_t c = begin; c < end; ++c) {
      for (int64_t column = 0; column < kPanel; column += kLanes) {
        alignas(64) float taps[9][kLanes] = {};
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const int64_t o = panel * kPanel + column + lane;
          if (o >= outputs) break;
          const float* g = filters + (adjoint ? c * outputs + o : o * inputs + c) * 9;
          for (int tap = 0; tap < 9; ++tap) taps[tap][lane] = g[adjoint ? 8 - tap : tap];
        }
        if (!winograd) {
          for (int tap = 0; tap < 9; ++tap) {
            store(packed + ((panel * 9 + tap) * inputs + c) * kPanel + column, load(taps[tap]));
          }
          continue;
        }
        Vec t[4][3];
        for (int s = 0; s < 3; ++s) {
          const Vec first = load(taps[s]), middle = load(taps[3 + s]), last = load(taps[6 + s]);
          t[0][s] = first;
          t[1][s] = 0.5f * (first + middle + last);
          t[2][s] = 0.5f * (first - middle + last);
          t[3][s] = last;
        }
        for (int r = 0; r < 4; ++r) {
          const Vec u[4] = {t[r][0], 0.5f * (t[r][0] + t[r][1] + t[r][2]), 0.5f * (t[r][0] - t[r][1] + t[r][2]), t[r][2]};
          for (int s = 0; s < 4; ++s) {
            store(packed + (((4 * r + s) * count + panel) * inputs + c) * kPanel + column, u[s]);
          }
        }
      }
    }
  }
}

int64_t conv3x3_scratch(const Conv3x3Call& call) {
  const Groups groups(call);
  if (takes_winograd(call.inputs)) return 16 * (groups.v_step + groups.m_step);
  return padded(3 * (call.width + 2) * call.inputs) + padded(call.width * groups.columns) + padded(9 * call.inputs);
}

void conv3x3_units(const Conv3x3Call& call, int64_t begin, int64_t end, float* scratch) {
  if (takes_winograd(call.inputs)) {
    winograd(call, begin, end, scratch);
  } else {
    direct(call, begin, end, scratch);
  }
}

Conv3x3WeightSizes conv3x3_weight_sizes(const Conv3x3WeightCall& call) {
  const WeightSizes sizes(call);
  if (!call.winograd()) return {0, 0, call.parts() * 9 * call.inputs * sizes.columns};
  return {16 * sizes.v_step, 16 * sizes.u_step, 16 * sizes.columns * sizes.vectors * kLanes};
}

void conv3x3_weight_transform(const Conv3x3WeightCall& call, int64_t first, int64_t begin, int64_t end) {
  const WeightSizes sizes(call);
  const int64_t inputs = call.inputs, outputs = call.outputs, rows = (call.height + 1) / 2;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t n = (first + row) / rows, i = (first + row) % rows;
    const float* x = call.x + n * call.height * call.width * inputs;
    const float* g = call.g + (n * call.height + 2 * i) * call.width * outputs;
    for (int64_t j = 0; j < call.tile_columns(); ++j) {
      const int64_t tile = row * call.tile_columns() + j;
      for_lanes<float>(inputs, [&](int64_t c, auto part) {
        float* to = call.v + c * sizes.tiles + tile * kLanes;
        transform_patch(x, call.height, call.width, inputs, i, j, c, part, [&](int f, Vec v) { store(to + f * sizes.v_step, v); });
      });
      // A g A^T of the 2x2 gradients of a tile.
      const bool right = 2 * j + 1 < call.width, below = 2 * i + 1 < call.height;
      for_lanes<float>(outputs, [&](int64_t c, auto part) {
        const float* from = g + 2 * j * outputs + c;
        const Vec a = part.load(from), b = right ? part.load(from + outputs) : Vec{};
        const Vec d = below ? part.load(from + call.width * outputs) : Vec{};
        const Vec e = right && below ? part.load(from + (call.width + 1) * outputs) : Vec{};
        const Vec t[4][2] = {{a, b}, {a + d, b + e}, {a - d, b - e}, {-d, -e}};
        float* to = call.u + (c / kPanel) * sizes.tiles * kPanel + tile * kPanel + c % kPanel;
        for (int r = 0; r < 4; ++r) {
          store(to + 4 * r * sizes.u_step, t[r][0]);
          store(to + (4 * r + 1) * sizes.u_step, t[r][0] + t[r][1]);
          store(to + (4 * r + 2) * sizes.u_step, t[r][0] - t[r][1]);
          store(to + (4 * r + 3) * sizes.u_step, -t[r][1]);
        }
      });
    }
  }
}

int64_t conv3x3_weight_products_count(const Conv3x3WeightCall& call) { return 16 * panels(call.outputs); }

void conv3x3_weight_products(const Conv3x3WeightCall& call, int64_t rows, bool add, int64_t begin, int64_t end) {
  if (add) {
    weight_products<true>(call, rows, begin, end);
  } else {
    weight_products<false>(call, rows, begin, end);
  }
}

int64_t conv3x3_weight_scratch(const Conv3x3WeightCall& call) {
  return padded(3 * (call.width + 2) * call.inputs) + padded(call.width * panels(call.outputs) * kPanel) + padded(9 * call.inputs);
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
            const Vec value = Vec{} + pixel[m][j * inputs];
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
  const int64_t inputs = call.inputs, outputs = call.outputs, columns = sizes.columns, count = panels(outputs);
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t o = 0; o < outputs; o += kLanes) {
      alignas(64) float taps[9][kLanes];
      if (call.winograd()) {
        // G^T m G
        const float* from = call.sums + (o / kPanel * sizes.vectors * kLanes + c) * kPanel + o % kPanel;
        const int64_t step = count * sizes.vectors * kLanes * kPanel;
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
