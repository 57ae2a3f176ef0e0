// What the CPU kernels of norm_act_pool and its derivatives share: an image's statistics, and its pooling windows. Only for
// *_cpu.cpp, where everything has internal linkage.
#pragma once

#include "lanes.h"
#include "norm_act_pool_cpu.h"

namespace fastdd {
namespace {

inline float square_root(float v) { return __builtin_sqrtf(v); }
inline double square_root(double v) { return __builtin_sqrt(v); }

// Channel vectors kept for an image; each row is padded to whole vectors.
template <class T>
struct Image {
  using L = Lanes<T>;
  using A = typename L::Scalar;
  using V = typename L::Vector;
  static constexpr int64_t kLanes = L::kCount;

  int64_t height, width, channels, padded, pixels;
  A *scale, *shift, *mean, *rstd, *sums;  // z = scale (x - mean) + shift: nothing large cancels

  Image(const NormActPoolCall& call, void* scratch)
      : height(call.height), width(call.width), channels(call.channels), padded((channels + kLanes - 1) / kLanes * kLanes),
        pixels(height * width) {
    scale = static_cast<A*>(scratch);
    shift = scale + padded;
    mean = shift + padded;
    rstd = mean + padded;
    sums = rstd + padded;
  }

  A* sum(int k) { return sums + k * padded; }

  void clear(int count) { std::memset(sums, 0, count * padded * sizeof(A)); }

  // Adds the second `count` sums to the first, and clears them: sums over many windows go by way of sums over a few, so that
  // their rounding errors do not grow with the image.
  void flush(int count) {
    A* few = sums + count * padded;
    for (int64_t c = 0; c < count * padded; ++c) {
      sums[c] += few[c];
      few[c] = 0;
    }
  }

  void affine(const NormActPoolCall& call) {
    const A* weight = static_cast<const A*>(call.weight);
    const A* bias = static_cast<const A*>(call.bias);
    for (int64_t c = 0; c < padded; ++c) {
      const bool real = c < channels;
      scale[c] = real ? weight[c] * rstd[c] : 0;
      shift[c] = real ? bias[c] : 0;
    }
  }

  void known_stats(const NormActPoolCall& call, int64_t n) {
    const A* stats = static_cast<const A*>(call.stats) + 2 * n * channels;
    for (int64_t c = 0; c < padded; ++c) {
      mean[c] = c < channels ? stats[c] : 0;
      rstd[c] = c < channels ? stats[channels + c] : 0;
    }
    affine(call);
  }

  // Mean and variance in blocks of pixels, each block from its own mean, blocks merged (Chan, Golub and LeVeque 1979): no
  // difference of large squares. All relative to the first pixel, so that a large mean is rounded only once. What a merge
  // rounds off goes into the next (Kahan 1965): an image of 64x64 has 256 blocks, and its pixels share these errors.
  void find_stats(const NormActPoolCall& call, const T* x, int64_t n) {
    constexpr int64_t kBlock = 16;
    A *squares = sum(0), *lost_mean = sum(1), *lost_squares = sum(2);
    std::memset(mean, 0, padded * sizeof(A));
    clear(3);
    const auto add = [](A* total, A* lost, V value) {
      const V before = Lanes<A>::load(total), rest = value - Lanes<A>::load(lost), after = before + rest;
      Lanes<A>::store(lost, (after - before) - rest);
      Lanes<A>::store(total, after);
    };
    for (int64_t start = 0; start < pixels; start += kBlock) {
      const int64_t count = pixels - start < kBlock ? pixels - start : kBlock;
      const A to_mean = A(count) / A(start + count), to_square = A(start) * to_mean, inverse = A(1) / A(count);
      for_lanes<T>(channels, [&](int64_t c, auto part) {
        const T* at = x + start * channels + c;
        const V first = part.load(x + c);
        V v[kBlock], sum = {}, square = {};
        if (count == kBlock) {
          for (int p = 0; p < kBlock; ++p) sum += v[p] = part.load(at + p * channels) - first;
          const V own = sum * inverse;
          for (int p = 0; p < kBlock; ++p) square += (v[p] - own) * (v[p] - own);
        } else {
          for (int64_t p = 0; p < count; ++p) sum += part.load(at + p * channels) - first;
          const V own = sum * inverse;
          for (int64_t p = 0; p < count; ++p) {
            const V apart = part.load(at + p * channels) - first - own;
            square += apart * apart;
          }
        }
        const V delta = sum * inverse - Lanes<A>::load(mean + c);
        add(mean + c, lost_mean + c, delta * to_mean);
        add(squares + c, lost_squares + c, square + delta * delta * to_square);
      });
    }
    for_lanes<T>(channels, [&](int64_t c, auto part) {
      Lanes<A>::store(mean + c, Lanes<A>::load(mean + c) + part.load(x + c));
    });
    A* stats = static_cast<A*>(call.stats) + 2 * n * channels;
    for (int64_t c = 0; c < channels; ++c) {
      rstd[c] = A(1) / square_root(squares[c] / A(pixels) + A(call.eps));
      stats[c] = mean[c];
      stats[channels + c] = rstd[c];
    }
    affine(call);
  }
};

// ReLU that hands NaN on: a run must see it.
template <class V>
inline V positive(V v) {
  return v < 0 ? V{} : v;
}

// Calls visit(pixels, window): `pixels` are the offsets of the K pixels of a window, `window` that of its output; and
// rest(pixel) for every pixel that is in no window.
template <int K, class T, class Visit, class Rest>
inline void for_windows(const Image<T>& image, Visit visit, Rest rest) {
  const int64_t w = image.width, c = image.channels;
  if constexpr (K == 1) {
    for (int64_t p = 0; p < image.pixels; ++p) {
      const int64_t at[1] = {p * c};
      visit(at, p * c);
    }
  } else {
    const int64_t rows = image.height / 2, columns = w / 2;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t first = (2 * i * w + 2 * j) * c;
        const int64_t at[4] = {first, first + c, first + w * c, first + (w + 1) * c};
        visit(at, (i * columns + j) * c);
      }
      for (int64_t j = 2 * columns; j < w; ++j) {
        rest((2 * i * w + j) * c);
        rest(((2 * i + 1) * w + j) * c);
      }
    }
    for (int64_t p = 2 * rows * w; p < image.pixels; ++p) rest(p * c);
  }
}

// How much of a window's gradient each of its K pixels gets, from their z: G = g * share.
template <class A, Pool P, int K, class V>
inline void shares(const V (&z)[K], V (&share)[K]) {
  if constexpr (P == Pool::max) {
    V best = z[0];
    for (int k = 1; k < K; ++k) best = z[k] > best ? z[k] : best;
    V left = best > 0 ? V{} + A(1) : V{};  // goes to the first of equal pixels
    for (int k = 0; k < K; ++k) {
      share[k] = z[k] == best ? left : V{};
      left = z[k] == best ? V{} : left;
    }
  } else {
    const V part = V{} + A(1) / K;
    for (int k = 0; k < K; ++k) share[k] = z[k] > 0 ? part : V{};
  }
}

// The K pixels of a window in one channel vector: x - mean, and the gradient that reaches each.
template <class T, Pool P, int K, class Lane>
inline void read_window(const Image<T>& image, const T* x, const int64_t (&at)[K], int64_t c, Lane part,
                        typename Lanes<T>::Vector (&centred)[K], typename Lanes<T>::Vector (&share)[K]) {
  using A = typename Lanes<T>::Scalar;
  using V = typename Lanes<T>::Vector;
  const V scale = Lanes<A>::load(image.scale + c), shift = Lanes<A>::load(image.shift + c);
  const V mean = Lanes<A>::load(image.mean + c);
  V z[K];
  for (int k = 0; k < K; ++k) {
    centred[k] = part.load(x + at[k] + c) - mean;
    z[k] = centred[k] * scale + shift;
  }
  shares<A, P, K, V>(z, share);
}

constexpr int64_t kFew = 64;  // windows from one flush to the next

template <class A, class V>
inline void add_to(A* sums, V value) {
  Lanes<A>::store(sums, Lanes<A>::load(sums) + value);
}

}  // namespace
}  // namespace fastdd
