// The gradient of a 3x3 convolution's filters. Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp.
#include "conv3x3_cpu.h"

#include "conv_winograd.h"

namespace fastdd {
namespace {

// Rows of the weight gradient's products: they divide a vector of input channels.
constexpr int kWeightRows = kLanes >= 16 ? 8 : 4;
// Filter taps of the direct weight gradient that are made at once.
constexpr int kTaps = 9;

// What of the weight gradient's memory is where, with tiles. Sums are [frequency, panel, input, column]. Of a row of frequencies, a unit's
// inputs and a block of tiles, `v` is the transformed x, [frequency, vector of inputs, tile, lane], and `u` g, [frequency, panel, tile,
// column].
template <class T>
struct WeightSizes {
  Grid<T> grid;
  int64_t rows, tiles, vectors, columns;  // rows of tiles, and tiles, of a block; of the sums

  explicit WeightSizes(const Conv3x3WeightCall& call)
      : grid(call.height, call.width),
        rows(std::min(std::max<int64_t>(1, T::kSummed / grid.columns), call.images * grid.rows)), tiles(rows * grid.columns),
        vectors((call.inputs + kLanes - 1) / kLanes), columns(panels(call.outputs) * kPanel) {}

  // From a frequency to the next: not a power of two, which would put all into the same cache set.
  int64_t frequency() const { return columns * vectors * kLanes + 16; }
  int64_t v_step() const { return Conv3x3WeightCall::kUnitInputs * tiles + 16; }
  int64_t u_step() const { return columns * tiles + 16; }
  int64_t sums() const { return T::kFrequencies * frequency(); }
  int64_t scratch(const Conv3x3WeightCall& call) const {
    return T::kPatchColumns * (v_step() + u_step()) + padded(std::max(call.inputs, call.outputs));
  }
};

struct WeightMemory {
  float *v, *u, *zeros;
};

// Pixels from (top, left) on of an image [height, width, channels], from `channel` on; zeros outside of it.
template <int R, int S>
struct Patch {
  const float* at[R][S];

  Patch(const Conv3x3WeightCall& call, const float* image, int64_t channels, int64_t channel, int64_t top, int64_t left,
        const float* zeros) {
    for (int r = 0; r < R; ++r) {
      for (int s = 0; s < S; ++s) {
        const int64_t h = top + r, w = left + s;
        const bool inside = h >= 0 && h < call.height && w >= 0 && w < call.width;
        at[r][s] = inside ? image + (h * call.width + w) * channels + channel : zeros;
      }
    }
  }

  // A row of its frequencies, to(channel) and `step` apart.
  template <class T, int Row, auto Down, auto Across, class To>
  void transform(int64_t channels, To to, int64_t step) const {
    for_lanes<float>(channels, [&](int64_t c, auto part) {
      Vec t[S], across[T::kPatchColumns];
      for (int s = 0; s < S; ++s) {
        Vec d[R], down[T::kPatchRows];
        for (int r = 0; r < R; ++r) d[r] = part.load(at[r][s] + c);
        Down(d, down);
        t[s] = down[Row];
      }
      Across(t, across);
      for (int f = 0; f < T::kPatchColumns; ++f) store(to(c) + f * step, across[f]);
    });
  }
};

template <bool Add>
void weight_products(int64_t inputs, int64_t columns, int64_t depth, int64_t tiles, const float* v, const float* u, float* sums,
                     int64_t panel_step) {
  for (int64_t panel = 0; panel < columns / kPanel; ++panel) {
    for (int64_t i = 0; i < inputs; i += kWeightRows) {
      product<kWeightRows, Add>(v + (i / kLanes) * tiles * kLanes + i % kLanes, 1, Every{kLanes}, depth, u + panel * tiles * kPanel,
                                sums + panel * panel_step + i * kPanel, kPanel);
    }
  }
}

// Rows of tiles of the images, and whether their products are the sums' first.
struct Block {
  const float *x, *g;
  int64_t first, rows;
  bool add;
};

// A row of frequencies of a block: what inputs from `channel` on add to the sums. `u` is made where it isn't there yet.
template <class T, int Row>
void weight_row(const Conv3x3WeightCall& call, const WeightSizes<T>& sizes, const Block& block, int64_t channel, bool make_u,
                const WeightMemory& memory) {
  const Grid<T>& grid = sizes.grid;
  const int64_t inputs = std::min(Conv3x3WeightCall::kUnitInputs, call.inputs - channel), pixels = call.height * call.width;
  for (int64_t tile = 0; tile < block.rows * grid.columns; ++tile) {
    const int64_t row = block.first + tile / grid.columns, n = row / grid.rows;
    const int64_t top = row % grid.rows * T::kRows, left = tile % grid.columns * T::kColumns;
    const Patch<T::kPatchRows, T::kPatchColumns> of_x(call, block.x + n * pixels * call.inputs, call.inputs, channel, top - 1, left - 1,
                                                      memory.zeros);
    of_x.template transform<T, Row, T::Down::of_pixels, T::Across::of_pixels>(
        inputs, [&](int64_t c) { return memory.v + c * sizes.tiles + tile * kLanes; }, sizes.v_step());
    if (!make_u) continue;
    const Patch<T::kRows, T::kColumns> of_g(call, block.g + n * pixels * call.outputs, call.outputs, 0, top, left, memory.zeros);
    of_g.template transform<T, Row, T::Down::of_gradients, T::Across::of_gradients>(
        call.outputs, [&](int64_t c) { return memory.u + (c / kPanel * sizes.tiles + tile) * kPanel + c % kPanel; }, sizes.u_step());
  }
  const auto products = block.add ? weight_products<true> : weight_products<false>;
  for (int f = 0; f < T::kPatchColumns; ++f) {
    products(inputs, sizes.columns, block.rows * grid.columns, sizes.tiles, memory.v + f * sizes.v_step(), memory.u + f * sizes.u_step(),
             call.sums + (Row * T::kPatchColumns + f) * sizes.frequency() + channel * kPanel, sizes.vectors * kLanes * kPanel);
  }
}

template <class T, int Row = 0, class... Rest>
void weight_row_of(int64_t row, const Rest&... rest) {
  if constexpr (Row < T::kPatchRows) row == Row ? weight_row<T, Row>(rest...) : weight_row_of<T, Row + 1>(row, rest...);
}

// Blocks outside, so that their pixels come from memory once.
template <class T>
void weight_units(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* scratch) {
  const WeightSizes<T> sizes(call);
  float* u = scratch + T::kPatchColumns * sizes.v_step();
  const WeightMemory memory{scratch, u, u + T::kPatchColumns * sizes.u_step()};
  std::memset(memory.zeros, 0, padded(std::max(call.inputs, call.outputs)) * sizeof(float));
  const int64_t rows = call.images * sizes.grid.rows, chunks = call.units() / T::kPatchRows;
  for (int pair = 0; pair < (call.x2 == nullptr ? 1 : 2); ++pair) {
    for (int64_t first = 0; first < rows; first += sizes.rows) {
      const Block block{pair == 0 ? call.x : call.x2, pair == 0 ? call.g : call.g2, first, std::min(sizes.rows, rows - first),
                        pair > 0 || first > 0};
      for (int64_t unit = begin; unit < end; ++unit) {
        const int64_t chunk = unit % chunks;
        weight_row_of<T>(unit / chunks, call, sizes, block, chunk * Conv3x3WeightCall::kUnitInputs, unit == begin || chunk == 0, memory);
      }
    }
  }
}

// Taps of input channels [begin, end), from taps_of(input, vector of outputs, taps).
template <class TapsOf>
void write_taps(const Conv3x3WeightCall& call, int64_t begin, int64_t end, TapsOf taps_of) {
  for (int64_t c = begin; c < end; ++c) {
    for (int64_t o = 0; o < call.outputs; o += kLanes) {
      alignas(64) float taps[9][kLanes];
      taps_of(c, o, taps);
      for (int64_t lane = 0; lane < kLanes && o + lane < call.outputs; ++lane) {
        float* to = call.filters + ((o + lane) * call.inputs + c) * 9;
        for (int tap = 0; tap < 9; ++tap) to[tap] = taps[tap][lane];
      }
    }
  }
}

// G^T m G.
template <class T>
void finish_tiles(const Conv3x3WeightCall& call, int64_t begin, int64_t end) {
  constexpr int R = T::kPatchRows, S = T::kPatchColumns;
  const WeightSizes<T> sizes(call);
  const int64_t step = sizes.frequency(), panel_step = sizes.vectors * kLanes;
  write_taps(call, begin, end, [&](int64_t c, int64_t o, float (&taps)[9][kLanes]) {
    const float* from = call.sums + (o / kPanel * panel_step + c) * kPanel + o % kPanel;
    Vec t[3][S];
    for (int s = 0; s < S; ++s) {
      Vec m[R], down[3];
      for (int r = 0; r < R; ++r) m[r] = load(from + (S * r + s) * step);
      T::Down::to_taps(m, down);
      for (int r = 0; r < 3; ++r) t[r][s] = down[r];
    }
    for (int r = 0; r < 3; ++r) {
      Vec across[3];
      T::Across::to_taps(t[r], across);
      for (int s = 0; s < 3; ++s) store(taps[3 * r + s], across[s]);
    }
  });
}

void finish_parts(const Conv3x3WeightCall& call, int64_t begin, int64_t end) {
  const int64_t columns = panels(call.outputs) * kPanel;
  write_taps(call, begin, end, [&](int64_t c, int64_t o, float (&taps)[9][kLanes]) {
    for (int tap = 0; tap < 9; ++tap) {
      Vec sum = {};
      for (int64_t part = 0; part < call.parts(); ++part) {
        sum += load(call.sums + (part * 9 * call.inputs + 9 * c + tap) * columns + o);
      }
      store(taps[tap], sum);
    }
  });
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t conv3x3_weight_sums(const Conv3x3WeightCall& call) {
  switch (call.how()) {
    case How::tiles2x2: return WeightSizes<Tiles2x2>(call).sums();
    case How::tiles2x4: return WeightSizes<Tiles2x4>(call).sums();
    case How::tiles4x4: return WeightSizes<Tiles4x4>(call).sums();
    default: return call.parts() * 9 * call.inputs * panels(call.outputs) * kPanel;
  }
}

int64_t conv3x3_weight_scratch(const Conv3x3WeightCall& call) {
  switch (call.how()) {
    case How::tiles2x2: return WeightSizes<Tiles2x2>(call).scratch(call);
    case How::tiles2x4: return WeightSizes<Tiles2x4>(call).scratch(call);
    case How::tiles4x4: return WeightSizes<Tiles4x4>(call).scratch(call);
    default:
      return padded(3 * (call.width + 2) * call.inputs) + padded(call.width * panels(call.outputs) * kPanel) + padded(9 * call.inputs);
  }
}

void conv3x3_weight_winograd(const Conv3x3WeightCall& call, int64_t begin, int64_t end, float* scratch) {
  switch (call.how()) {
    case How::tiles2x4: return weight_units<Tiles2x4>(call, begin, end, scratch);
    case How::tiles4x4: return weight_units<Tiles4x4>(call, begin, end, scratch);
    default: weight_units<Tiles2x2>(call, begin, end, scratch);
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
  switch (call.how()) {
    case How::tiles2x2: return finish_tiles<Tiles2x2>(call, begin, end);
    case How::tiles2x4: return finish_tiles<Tiles2x4>(call, begin, end);
    case How::tiles4x4: return finish_tiles<Tiles4x4>(call, begin, end);
    default: finish_parts(call, begin, end);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
