// Winograd's convolutions of 3x3 filters (Lavin and Gray 2016) by tiles of 2x2, 2x4 or, for the filters' gradient, 4x4 pixels: what a
// tile is, the transforms, and the products of a group of tiles with a panel of filters. Only for *_cpu.cpp, where everything has internal linkage.
#pragma once

#include <algorithm>

#include "conv_tiles.h"

namespace fastdd {
namespace {

// F(2, 3) of a row or a column, from the points 0, 1, -1 and infinity.
struct By2 {
  static constexpr int kPixels = 2, kPatch = 4;

  static void of_pixels(const Vec (&d)[4], Vec (&t)[4]) {
    t[0] = d[0] - d[2];
    t[1] = d[1] + d[2];
    t[2] = d[2] - d[1];
    t[3] = d[1] - d[3];
  }

  static void to_pixels(const Vec (&m)[4], Vec (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
  }

  static void of_taps(const Vec (&g)[3], Vec (&u)[4]) {
    u[0] = g[0];
    u[1] = 0.5f * (g[0] + g[1] + g[2]);
    u[2] = 0.5f * (g[0] - g[1] + g[2]);
    u[3] = g[2];
  }

  // Of the filters' gradient, adjoint to what they are adjoint to: A g and G^T m.
  static void of_gradients(const Vec (&g)[2], Vec (&t)[4]) {
    t[0] = g[0];
    t[1] = g[0] + g[1];
    t[2] = g[0] - g[1];
    t[3] = -g[1];
  }

  static void to_taps(const Vec (&m)[4], Vec (&w)[3]) {
    const Vec half = 0.5f * (m[1] + m[2]);
    w[0] = m[0] + half;
    w[1] = 0.5f * (m[1] - m[2]);
    w[2] = half + m[3];
  }
};

// F(4, 3), from 0, a, -a, b, -b and infinity. Constants are exact but for those of the taps.
struct By4 {
  static constexpr int kPixels = 4, kPatch = 6;
  static constexpr float a = 21.0f / 32, b = 1.5f, a2 = a * a, b2 = b * b;

  static void of_pixels(const Vec (&d)[6], Vec (&t)[6]) {
    const Vec even_a = d[4] - b2 * d[2], odd_a = a * (d[3] - b2 * d[1]);
    const Vec even_b = d[4] - a2 * d[2], odd_b = b * (d[3] - a2 * d[1]);
    t[0] = a2 * b2 * d[0] + (d[4] - (a2 + b2) * d[2]);
    t[1] = even_a + odd_a;
    t[2] = even_a - odd_a;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = a2 * b2 * d[1] + (d[5] - (a2 + b2) * d[3]);
  }

  static void to_pixels(const Vec (&m)[6], Vec (&y)[4]) {
    const Vec even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + (even_a + even_b);
    y[1] = a * odd_a + b * odd_b;
    y[2] = a2 * even_a + b2 * even_b;
    y[3] = a * a2 * odd_a + (b * b2 * odd_b + m[5]);
  }

  static constexpr float at_0 = 1 / (a2 * b2), at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));

  static void of_taps(const Vec (&g)[3], Vec (&u)[6]) {
    const Vec even_a = g[0] + a2 * g[2], even_b = g[0] + b2 * g[2];
    u[0] = at_0 * g[0];
    u[1] = at_a * (even_a + a * g[1]);
    u[2] = at_a * (even_a - a * g[1]);
    u[3] = at_b * (even_b + b * g[1]);
    u[4] = at_b * (even_b - b * g[1]);
    u[5] = g[2];
  }

  static void of_gradients(const Vec (&g)[4], Vec (&t)[6]) {
    const Vec even_a = g[0] + a2 * g[2], odd_a = a * (g[1] + a2 * g[3]);
    const Vec even_b = g[0] + b2 * g[2], odd_b = b * (g[1] + b2 * g[3]);
    t[0] = g[0];
    t[1] = even_a + odd_a;
    t[2] = even_a - odd_a;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = g[3];
  }

  static void to_taps(const Vec (&m)[6], Vec (&w)[3]) {
    const Vec even_a = at_a * (m[1] + m[2]), odd_a = at_a * (m[1] - m[2]);
    const Vec even_b = at_b * (m[3] + m[4]), odd_b = at_b * (m[3] - m[4]);
    w[0] = at_0 * m[0] + (even_a + even_b);
    w[1] = a * odd_a + b * odd_b;
    w[2] = a2 * even_a + (b2 * even_b + m[5]);
  }
};

template <class Down_, class Across_>
struct Tiles {
  using Down = Down_;
  using Across = Across_;
  static constexpr int kRows = Down::kPixels, kColumns = Across::kPixels;              // pixels of a tile
  static constexpr int kPatchRows = Down::kPatch, kPatchColumns = Across::kPatch;      // and of what they depend on
  static constexpr int kFrequencies = kPatchRows * kPatchColumns;
};

// 4 multiplications a pixel.
struct Tiles2x2 : Tiles<By2, By2> {
  static constexpr int64_t kGroup = 64;  // tiles of a product, which share a pass over the filters
  static constexpr int64_t kSummed = 128;  // tiles of a product of the filters' gradient

  // Channels that are summed in one go.
  static int64_t depth(int64_t inputs) { return inputs; }
};

// 3 multiplications a pixel. With the usual points 0, 1, -1, 2 and -2 its rounding error is twice that of these, and most of it is the
// sums': taken of 16 channels at a time they leave less than 2x2 tiles have (docs/performance.md).
struct Tiles2x4 : Tiles<By2, By4> {
  static constexpr int64_t kGroup = 36;
  static constexpr int64_t kSummed = 64;

  static int64_t depth(int64_t) { return 16; }
};

// 2.25 multiplications a pixel. Only for the filters' gradient of many pixels, whose sum loses more digits than the transforms.
struct Tiles4x4 : Tiles<By4, By4> {
  static constexpr int64_t kSummed = 32;
};

// The tiles that an image is cut into; those at its lower and right edges may stick out.
template <class T>
struct Grid {
  int64_t height, width, rows, columns, tiles;

  Grid(int64_t height_, int64_t width_)
      : height(height_), width(width_), rows((height + T::kRows - 1) / T::kRows),
        columns((width + T::kColumns - 1) / T::kColumns), tiles(rows * columns) {}
};

// B^T d B of 4x4 or 4x6 pixels, pixel(r, s) of them, to frequencies `step` apart.
template <class T, class Pixel>
inline void transform_pixels(Pixel pixel, float* to, int64_t step) {
  constexpr int R = T::kPatchRows, S = T::kPatchColumns;
  Vec t[R][S];  // [frequency downwards, column]
  for (int s = 0; s < S; ++s) {
    Vec d[R], down[R];
    for (int r = 0; r < R; ++r) d[r] = pixel(r, s);
    T::Down::of_pixels(d, down);
    for (int r = 0; r < R; ++r) t[r][s] = down[r];
  }
  for (int r = 0; r < R; ++r) {
    Vec across[S];
    T::Across::of_pixels(t[r], across);
    for (int s = 0; s < S; ++s) store(to + (S * r + s) * step, across[s]);
  }
}

// The same of the pixels around tile (i, j) of an image [height, width, channels], to [frequency, channel]. Pixels outside are zero.
template <class T>
void transform_patch(const Grid<T>& grid, const float* x, int64_t channels, int64_t i, int64_t j, float* to, int64_t step) {
  const int64_t top = T::kRows * i - 1, left = T::kColumns * j - 1;
  const bool whole = top >= 0 && left >= 0 && top + T::kPatchRows <= grid.height && left + T::kPatchColumns <= grid.width;
  const int64_t row = grid.width * channels;
  for (int64_t from = 0; from < channels; from += kLanes) {
    // The last vector is moved back over channels already done rather than cut.
    const int64_t c = from + kLanes <= channels ? from : channels - kLanes;
    const int64_t corner = (top * grid.width + left) * channels + c;
    if (whole) {
      transform_pixels<T>([&](int r, int s) { return load(x + corner + r * row + s * channels); }, to + c, step);
    } else {
      const auto or_zero = [&](int r, int s) {
        const bool inside = top + r >= 0 && top + r < grid.height && left + s >= 0 && left + s < grid.width;
        return inside ? load(x + (corner + r * row + s * channels)) : Vec{};
      };
      transform_pixels<T>(or_zero, to + c, step);
    }
  }
}

// A^T m A of a tile's products, `step` apart: its pixels in one vector of columns.
template <class T>
inline void tile_pixels(const float* from, int64_t step, Vec (&y)[T::kRows][T::kColumns]) {
  constexpr int R = T::kPatchRows, S = T::kPatchColumns;
  Vec t[T::kRows][S];
  for (int s = 0; s < S; ++s) {
    Vec m[R], down[T::kRows];
    for (int r = 0; r < R; ++r) m[r] = load(from + (S * r + s) * step);
    T::Down::to_pixels(m, down);
    for (int r = 0; r < T::kRows; ++r) t[r][s] = down[r];
  }
  for (int r = 0; r < T::kRows; ++r) T::Across::to_pixels(t[r], y[r]);
}

// Products of transformed tiles, [frequency, tile, input], with the filters of a panel, [frequency, input, column]: to [frequency,
// tile, column], or added to what is there. Frequencies are `step` and `made_step` apart.
template <class T>
void panel_products(int64_t tiles, int64_t inputs, const float* transformed, int64_t step, const float* filters, float* made,
                    int64_t made_step, bool add) {
  for (int f = 0; f < T::kFrequencies; ++f) {
    for (int64_t k = 0; k < inputs; k += T::depth(inputs)) {
      const int64_t depth = std::min(T::depth(inputs), inputs - k);
      const float *v = transformed + f * step + k, *u = filters + (f * inputs + k) * kPanel;
      if (add || k > 0) {
        product_of<true>(tiles, v, inputs, Every{1}, depth, u, made + f * made_step, kPanel);
      } else {
        product_of(tiles, v, inputs, Every{1}, depth, u, made + f * made_step, kPanel);
      }
    }
  }
}

// From a frequency to the next of `tiles` transformed tiles, and of their products with a panel: not a power of two, which would
// put all into the same cache set.
inline int64_t transformed_step(int64_t tiles, int64_t inputs) { return padded(tiles * inputs) + 16; }
inline int64_t made_step(int64_t tiles) { return tiles * kPanel + 16; }

// G g G^T of a vector of filters' taps, to frequencies `step` apart.
template <class T>
inline void transform_taps(const float (&taps)[9][kLanes], float* to, int64_t step) {
  constexpr int R = T::kPatchRows, S = T::kPatchColumns;
  Vec t[R][3];
  for (int s = 0; s < 3; ++s) {
    const Vec g[3] = {load(taps[s]), load(taps[3 + s]), load(taps[6 + s])};
    Vec down[R];
    T::Down::of_taps(g, down);
    for (int r = 0; r < R; ++r) t[r][s] = down[r];
  }
  for (int r = 0; r < R; ++r) {
    Vec across[S];
    T::Across::of_taps(t[r], across);
    for (int s = 0; s < S; ++s) store(to + (S * r + s) * step, across[s]);
  }
}

}  // namespace
}  // namespace fastdd
