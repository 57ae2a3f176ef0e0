// What the CPU's 3x3 convolutions share: the products of small matrices that they come down to, and the transforms of Winograd's
// F(2x2, 3x3) (Lavin and Gray 2016). Only for *_cpu.cpp, where everything has internal linkage.
#pragma once

#include "lanes.h"

namespace fastdd {
namespace {

// Rows of a product that the registers hold.
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
using Vec = Lanes<float>::Vector;
constexpr int64_t kLanes = Lanes<float>::kCount;
constexpr int64_t kPanel = 2 * kLanes;  // columns of a product that are made at once

inline Vec load(const float* p) { return Lanes<float>::load(p); }
inline void store(float* p, Vec v) { Lanes<float>::store(p, v); }

inline int64_t panels(int64_t outputs) { return (outputs + kPanel - 1) / kPanel; }
inline int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16; }

// Offsets 0, step, 2 step, ...: where a product's factor is a plain matrix, instead of a table.
struct Every {
  int64_t step;
  int64_t operator[](int64_t k) const { return k * step; }
};

// c[m, 0 .. kPanel) = sum over k of a[m * stride + at[k]] * b[k, 0 .. kPanel), added to what c holds if Add.
template <int M, bool Add = false, class At>
inline void product(const float* a, int64_t stride, At at, int64_t depth, const float* b, float* c, int64_t columns) {
  Vec sum[M][2] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const Vec b0 = load(b + k * kPanel), b1 = load(b + k * kPanel + kLanes);
    const float* from = a + at[k];
    for (int m = 0; m < M; ++m) {
      const Vec value = Vec{} + from[m * stride];
      sum[m][0] += value * b0;
      sum[m][1] += value * b1;
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    float* to = c + m * columns;
    store(to, Add ? load(to) + sum[m][0] : sum[m][0]);
    store(to + kLanes, Add ? load(to + kLanes) + sum[m][1] : sum[m][1]);
  }
}

template <bool Add = false, class At>
inline void product_of(int64_t rows, const float* a, int64_t stride, At at, int64_t depth, const float* b, float* c,
                       int64_t columns) {
  for (; rows >= kRows; rows -= kRows, a += kRows * stride, c += kRows * columns) {
    product<kRows, Add>(a, stride, at, depth, b, c, columns);
  }
  for (; rows >= 4; rows -= 4, a += 4 * stride, c += 4 * columns) product<4, Add>(a, stride, at, depth, b, c, columns);
  for (; rows >= 2; rows -= 2, a += 2 * stride, c += 2 * columns) product<2, Add>(a, stride, at, depth, b, c, columns);
  if (rows > 0) product<1, Add>(a, stride, at, depth, b, c, columns);
}

// B^T d B of the 4x4 patch d around tile (i, j) of an image [height, width, channels], lanes from `channel` on: store(f, vector) gets
// the 16 values. Pixels outside are zero.
template <class Part, class Store>
inline void transform_patch(const float* x, int64_t height, int64_t width, int64_t channels, int64_t i, int64_t j, int64_t channel,
                            Part part, Store store_at) {
  Vec d[4][4];
  for (int r = 0; r < 4; ++r) {
    const int64_t h = 2 * i + r - 1;
    for (int s = 0; s < 4; ++s) {
      const int64_t w = 2 * j + s - 1;
      const bool inside = h >= 0 && h < height && w >= 0 && w < width;
      d[r][s] = inside ? part.load(x + (h * width + w) * channels + channel) : Vec{};
    }
  }
  Vec t[4][4];
  for (int s = 0; s < 4; ++s) {
    t[0][s] = d[0][s] - d[2][s];
    t[1][s] = d[1][s] + d[2][s];
    t[2][s] = d[2][s] - d[1][s];
    t[3][s] = d[1][s] - d[3][s];
  }
  for (int r = 0; r < 4; ++r) {
    store_at(4 * r, t[r][0] - t[r][2]);
    store_at(4 * r + 1, t[r][1] + t[r][2]);
    store_at(4 * r + 2, t[r][2] - t[r][1]);
    store_at(4 * r + 3, t[r][1] - t[r][3]);
  }
}

}  // namespace
}  // namespace fastdd
