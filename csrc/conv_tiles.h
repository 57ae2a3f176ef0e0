// What the CPU's 3x3 convolutions share: the products of small matrices that they come down to. Only for *_cpu.cpp, where everything
// has internal linkage.
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

// A load that goes to every lane: subtracting nothing is no instruction, as adding it is, which makes 0 of -0.
inline Vec every_lane(float value) { return value - Vec{}; }

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
      const Vec value = every_lane(from[m * stride]);
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
  for (; rows >= 8 && kRows > 8; rows -= 8, a += 8 * stride, c += 8 * columns) product<8, Add>(a, stride, at, depth, b, c, columns);
  for (; rows >= 4; rows -= 4, a += 4 * stride, c += 4 * columns) product<4, Add>(a, stride, at, depth, b, c, columns);
  for (; rows >= 2; rows -= 2, a += 2 * stride, c += 2 * columns) product<2, Add>(a, stride, at, depth, b, c, columns);
  if (rows > 0) product<1, Add>(a, stride, at, depth, b, c, columns);
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

}  // namespace
}  // namespace fastdd
