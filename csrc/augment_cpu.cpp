// Compiled once per instruction set (FASTDD_VARIANT); see segment_mean_cpu.cpp for what that forbids.
#include "augment_cpu.h"

#include <cstdlib>
#include <cstring>

#include "augment_math.h"

namespace fastdd {
namespace {

struct bf16 {
  uint16_t bits;
};

inline float value_of(float v) { return v; }
inline double value_of(double v) { return v; }
inline float value_of(bf16 v) {
  const uint32_t bits = static_cast<uint32_t>(v.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline void put(float* p, float v) { *p = v; }
inline void put(double* p, double v) { *p = v; }
inline void put(double* p, float v) { *p = v; }
inline void put(bf16* p, float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  const uint16_t rounded = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  p->bits = v == v ? rounded : 0x7fc0;  // to nearest, ties to even
}

// One thread's buffers: `image` is [C, H, W], `padded` is [C, H + 3, W + 3] with a zero border (1 before, 2 after).
template <class T>
struct Scratch {
  T* image;
  T* padded;
  T* row;  // [3 W] per-pixel helpers
  int* index;
  int channels, height, width, pitch;
  int64_t plane, padded_plane;
  void* memory;

  explicit Scratch(const AugmentCall& call)
      : channels(call.channels), height(call.height), width(call.width), pitch(call.width + 3),
        plane(int64_t(call.height) * call.width), padded_plane(int64_t(call.height + 3) * pitch) {
    const size_t count = channels * (plane + padded_plane) + 3 * width;
    memory = std::calloc(1, count * sizeof(T) + width * sizeof(int));
    image = static_cast<T*>(memory);
    padded = image + channels * plane;
    row = padded + channels * padded_plane;
    index = reinterpret_cast<int*>(row + 3 * width);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(memory); }

  T* inside(int channel) { return padded + channel * padded_plane + pitch + 1; }
};

// Reads pixels of one channel as the computing type.
template <class T, class In>
struct Reader {
  const In* source;
  T operator()(int64_t i) const { return static_cast<T>(value_of(source[i])); }
};

template <class T>
struct Reader<T, uint8_t> {
  const uint8_t* source;
  const T* table;
  T operator()(int64_t i) const { return table[source[i]]; }
};

inline bool whole(float v) { return v > -1e6f && v < 1e6f && v == static_cast<float>(static_cast<int>(v)); }
inline bool whole(double v) { return v > -1e6 && v < 1e6 && v == static_cast<double>(static_cast<int>(v)); }

// A shift by whole pixels, mirrored or not: copied, not interpolated.
template <class T>
bool moves_pixels(const Row<T>& r) {
  return r.b == 0 && r.d == 0 && (r.a == 1 || r.a == -1) && (r.e == 1 || r.e == -1) && whole(r.c) && whole(r.f);
}

// out[y][x] = in[sy * y + ty][sx * x + tx], zeros outside.
template <class T, class Read>
void move(const Read& in, T* out, int height, int width, int sx, int tx, int sy, int ty) {
  int first = sx > 0 ? -tx : tx - (width - 1);
  int last = sx > 0 ? width - tx : tx + 1;
  first = first < 0 ? 0 : first > width ? width : first;
  last = last > width ? width : last < first ? first : last;
  for (int y = 0; y < height; ++y, out += width) {
    const int v = sy * y + ty;
    if (v < 0 || v >= height) {
      std::memset(out, 0, width * sizeof(T));
      continue;
    }
    for (int x = 0; x < first; ++x) out[x] = T(0);
    const int64_t start = int64_t(v) * width + tx;
    if (sx > 0) {
      for (int x = first; x < last; ++x) out[x] = in(start + x);
    } else {
      for (int x = first; x < last; ++x) out[x] = in(start - x);
    }
    for (int x = last; x < width; ++x) out[x] = T(0);
  }
}

// Saturation and contrast: symmetric, so the adjoint uses them too.
template <class T>
void saturate(T* image, int channels, int64_t plane, T factor) {
  if (channels == 1 || factor == 1) return;
  constexpr int64_t block = 256;
  T mean[block];
  const T share = T(1) / static_cast<T>(channels);
  for (int64_t start = 0; start < plane; start += block) {
    const int64_t n = plane - start < block ? plane - start : block;
    T* pixels = image + start;
    for (int64_t i = 0; i < n; ++i) mean[i] = pixels[i];
    for (int c = 1; c < channels; ++c) {
      for (int64_t i = 0; i < n; ++i) mean[i] += pixels[c * plane + i];
    }
    for (int64_t i = 0; i < n; ++i) mean[i] *= share;
    for (int c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < n; ++i) pixels[c * plane + i] = about_mean(pixels[c * plane + i], mean[i], factor);
    }
  }
}

template <class T>
void contrast(T* image, int64_t count, T factor) {
  if (factor == 1) return;
  constexpr int lanes = 16;
  constexpr int64_t run = 1024;  // summed in T, then added to double
  double total = 0;
  for (int64_t start = 0; start < count; start += run) {
    const int64_t n = count - start < run ? count - start : run;
    T sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      for (int k = 0; k < lanes; ++k) sums[k] += image[start + i + k];
    }
    for (; i < n; ++i) sums[0] += image[start + i];
    for (int k = 0; k < lanes; ++k) total += sums[k];
  }
  const T mean = static_cast<T>(total / static_cast<double>(count));
  for (int64_t i = 0; i < count; ++i) image[i] = about_mean(image[i], mean, factor);
}

template <class T>
void cut(T* image, const Row<T>& r, int channels, int height, int width) {
  if (r.top >= r.bottom || r.left >= r.right) return;
  for (int c = 0; c < channels; ++c) {
    for (int y = r.top; y < r.bottom; ++y) {
      std::memset(image + (int64_t(c) * height + y) * width + r.left, 0, (r.right - r.left) * sizeof(T));
    }
  }
}

// The padded source sampled for every result pixel. Helpers of a row are computed once and used by all channels.
template <class T>
void warp(Scratch<T>& s, const Row<T>& r, T* __restrict image) {
  const int width = s.width, height = s.height, pitch = s.pitch;
  T* __restrict fx = s.row;
  T* __restrict fy = s.row + width;
  int* __restrict index = s.index;
  for (int y = 0; y < height; ++y) {
    const T x0 = r.b * T(y) + r.c, y0 = r.e * T(y) + r.f;
    for (int x = 0; x < width; ++x) {
      const T sx = to_border(r.a * T(x) + x0, width);
      const T sy = to_border(r.d * T(x) + y0, height);
      const int u = floor_of(sx), v = floor_of(sy);
      fx[x] = sx - T(u);
      fy[x] = sy - T(v);
      index[x] = v * pitch + u;
    }
    for (int c = 0; c < s.channels; ++c) {
      const T* __restrict source = s.inside(c);
      T* __restrict out = image + c * s.plane + int64_t(y) * width;
      for (int x = 0; x < width; ++x) {
        const T* p = source + index[x];
        out[x] = bilinear(fx[x], fy[x], p[0], p[1], p[pitch], p[pitch + 1]);
      }
    }
  }
}

// Transpose of warp(): a gather over the window of result pixels, from the padded gradient.
template <class T>
void warp_adjoint(Scratch<T>& s, const Row<T>& r, T* __restrict image) {
  const int width = s.width, height = s.height, pitch = s.pitch;
  const Window<T> w = window_of(r);
  T* __restrict weight = s.row;
  int* __restrict index = s.index;
  for (int v = 0; v < height; ++v) {
    for (int c = 0; c < s.channels; ++c) std::memset(image + c * s.plane + int64_t(v) * width, 0, width * sizeof(T));
    for (int j = 0; j < w.ny; ++j) {
      for (int i = 0; i < w.nx; ++i) {
        for (int u = 0; u < width; ++u) {
          const int x = first_x(r, w, u, v, width) + i;
          const int y = first_y(r, w, u, v, height) + j;
          weight[u] = weight_of(r, x, y, u, v);
          // Result pixels outside the image have gradient zero: the border.
          const int xb = x < -1 ? -1 : x > width ? width : x;
          const int yb = y < -1 ? -1 : y > height ? height : y;
          index[u] = yb * pitch + xb;
        }
        for (int c = 0; c < s.channels; ++c) {
          const T* __restrict source = s.inside(c);
          T* __restrict out = image + c * s.plane + int64_t(v) * width;
          for (int u = 0; u < width; ++u) out[u] += weight[u] * source[index[u]];
        }
      }
    }
  }
}

template <class T, class In>
Reader<T, In> reader(const AugmentCall& call, int64_t image, int channel, int64_t plane) {
  const In* source = static_cast<const In*>(call.in) + (image * call.channels + channel) * plane;
  if constexpr (sizeof(In) == 1) {
    return {source, static_cast<const T*>(call.normalised) + 256 * channel};
  } else {
    return {source};
  }
}

template <class T>
Row<T> row_of(const AugmentCall& call, int64_t image) {
  const int64_t row = call.rows != nullptr ? call.rows[image] : call.n_rows == 1 ? 0 : image;
  return call.params_f64
             ? read_row<T>(static_cast<const double*>(call.params) + row * kColumns, call.height, call.width, call.linear)
             : read_row<T>(static_cast<const float*>(call.params) + row * kColumns, call.height, call.width, call.linear);
}

// Where an image is computed: in the output when it has the computing type.
template <class T, class Out>
T* target(const AugmentCall& call, Scratch<T>& s, int64_t image) {
  if constexpr (sizeof(T) == sizeof(Out)) {
    return static_cast<T*>(call.out) + image * s.channels * s.plane;
  } else {
    return s.image;
  }
}

template <class T, class Out>
void store(const AugmentCall& call, Scratch<T>& s, int64_t image) {
  if constexpr (sizeof(T) != sizeof(Out)) {
    const int64_t count = s.channels * s.plane;
    Out* out = static_cast<Out*>(call.out) + image * count;
    for (int64_t i = 0; i < count; ++i) put(out + i, s.image[i]);
  }
}

template <class T, class In, class Out>
bool forward(const AugmentCall& call, int64_t begin, int64_t end) {
  Scratch<T> s(call);
  if (s.memory == nullptr) return false;
  for (int64_t n = begin; n < end; ++n) {
    const Row<T> r = row_of<T>(call, n);
    T* image = target<T, Out>(call, s, n);
    if (moves_pixels(r)) {
      for (int c = 0; c < s.channels; ++c) {
        move(reader<T, In>(call, n, c, s.plane), image + c * s.plane, s.height, s.width, static_cast<int>(r.a),
             static_cast<int>(r.c), static_cast<int>(r.e), static_cast<int>(r.f));
      }
    } else {
      for (int c = 0; c < s.channels; ++c) {
        const auto in = reader<T, In>(call, n, c, s.plane);
        T* inside = s.inside(c);
        for (int y = 0; y < s.height; ++y) {
          for (int x = 0; x < s.width; ++x) inside[int64_t(y) * s.pitch + x] = in(int64_t(y) * s.width + x);
        }
      }
      warp(s, r, image);
    }
    const int64_t count = s.channels * s.plane;
    if (r.brightness != 0) {
      for (int64_t i = 0; i < count; ++i) image[i] += r.brightness;
    }
    saturate(image, s.channels, s.plane, r.saturation);
    contrast(image, count, r.contrast);
    cut(image, r, s.channels, s.height, s.width);
    store<T, Out>(call, s, n);
  }
  return true;
}

template <class T, class In>
bool adjoint(const AugmentCall& call, int64_t begin, int64_t end) {
  Scratch<T> s(call);
  const int64_t count = s.channels * s.plane;
  T* coloured = s.memory == nullptr ? nullptr : static_cast<T*>(std::malloc(count * sizeof(T)));
  if (coloured == nullptr) return false;
  for (int64_t n = begin; n < end; ++n) {
    const Row<T> r = row_of<T>(call, n);
    T* image = target<T, In>(call, s, n);
    const Reader<T, In> in = reader<T, In>(call, n, 0, s.plane);
    for (int64_t i = 0; i < count; ++i) coloured[i] = in(i);
    cut(coloured, r, s.channels, s.height, s.width);
    contrast(coloured, count, r.contrast);
    saturate(coloured, s.channels, s.plane, r.saturation);
    for (int c = 0; c < s.channels; ++c) {
      const T* source = coloured + c * s.plane;
      if (moves_pixels(r)) {
        const int a = static_cast<int>(r.a), e = static_cast<int>(r.e);
        move(Reader<T, T>{source}, image + c * s.plane, s.height, s.width, a, -a * static_cast<int>(r.c), e,
             -e * static_cast<int>(r.f));
      } else {
        T* inside = s.inside(c);
        for (int y = 0; y < s.height; ++y) std::memcpy(inside + int64_t(y) * s.pitch, source + int64_t(y) * s.width, s.width * sizeof(T));
      }
    }
    if (!moves_pixels(r)) warp_adjoint(s, r, image);
    store<T, In>(call, s, n);
  }
  std::free(coloured);
  return true;
}

}  // namespace

namespace FASTDD_VARIANT {

bool augment_images(const AugmentCall& call, int64_t begin, int64_t end) {
  switch (call.in_dtype) {
    case Dtype::f32: return forward<float, float, float>(call, begin, end);
    case Dtype::f64: return forward<double, double, double>(call, begin, end);
    case Dtype::bf16: return forward<float, bf16, bf16>(call, begin, end);
    case Dtype::u8: break;
  }
  switch (call.out_dtype) {
    case Dtype::f64: return forward<double, uint8_t, double>(call, begin, end);
    case Dtype::bf16: return forward<float, uint8_t, bf16>(call, begin, end);
    default: return forward<float, uint8_t, float>(call, begin, end);
  }
}

bool augment_adjoint_images(const AugmentCall& call, int64_t begin, int64_t end) {
  switch (call.in_dtype) {
    case Dtype::f64: return adjoint<double, double>(call, begin, end);
    case Dtype::bf16: return adjoint<float, bf16>(call, begin, end);
    default: return adjoint<float, float>(call, begin, end);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
