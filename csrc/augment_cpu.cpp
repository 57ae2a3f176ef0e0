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

// Four channels of a pixel. The warp is a walk over scattered pixels: interleaved, one load brings all channels.
constexpr int kLanes = 4;

template <class T>
struct Pixel {
  // Less aligned than its size, so that plain malloc will do.
  typedef T type __attribute__((vector_size(kLanes * sizeof(T)), aligned(sizeof(T))));
};

template <class T>
using PixelOf = typename Pixel<T>::type;

// One thread's buffers.
template <class T>
struct Scratch {
  int channels, height, width;
  int64_t plane;
  T* image;          // [C, H, W]
  T* coloured;       // [C, H, W], adjoint only
  PixelOf<T>* grid;  // an interleaved image with a zero border
  PixelOf<T>* line;  // [W]
  T* helpers;        // [W] times what a row of the warp, or of its adjoint, computes once for all channels
  int* index;        // [W]
  void* memory;

  static constexpr int kHelpers = 2 + kLargestWindow * kLargestWindow;

  Scratch(const AugmentCall& call, bool adjoint)
      : channels(call.channels), height(call.height), width(call.width), plane(int64_t(call.height) * call.width) {
    const int border = adjoint ? 2 * kLargestWindow : 3;
    const size_t pixels = size_t(height + border) * (width + border) + width;
    const size_t planes = channels * plane * (adjoint ? 2 : 1);
    const size_t helper_count = size_t(adjoint ? kHelpers : 2) * width;
    memory = std::malloc((planes + kLanes * pixels + helper_count) * sizeof(T) + width * sizeof(int));
    image = static_cast<T*>(memory);
    coloured = image + channels * plane;
    grid = reinterpret_cast<PixelOf<T>*>(image + planes);
    line = grid + size_t(height + border) * (width + border);
    helpers = reinterpret_cast<T*>(line + width);
    index = reinterpret_cast<int*>(helpers + helper_count);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(memory); }
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

// Fills s.grid with M channels, from the first that `in(k)` reads, with `before` and `after` zero pixels around.
template <int M, class T, class In>
void interleave(Scratch<T>& s, const In& in, int before, int after) {
  const int pitch = s.width + before + after;
  std::memset(static_cast<void*>(s.grid), 0, sizeof(PixelOf<T>) * pitch * (s.height + before + after));
  const auto first = in(0), second = in(M > 1 ? 1 : 0), third = in(M > 2 ? 2 : 0), fourth = in(M > 3 ? 3 : 0);
  for (int y = 0; y < s.height; ++y) {
    T* __restrict pixels = reinterpret_cast<T*>(s.grid + int64_t(y + before) * pitch + before);
    const int64_t start = int64_t(y) * s.width;
    for (int x = 0; x < s.width; ++x) {
      pixels[kLanes * x] = first(start + x);
      pixels[kLanes * x + 1] = M > 1 ? second(start + x) : T(0);
      pixels[kLanes * x + 2] = M > 2 ? third(start + x) : T(0);
      pixels[kLanes * x + 3] = M > 3 ? fourth(start + x) : T(0);
    }
  }
}

template <int M, class T>
void separate(const Scratch<T>& s, T* __restrict out) {
  const T* __restrict pixels = reinterpret_cast<const T*>(s.line);
  for (int x = 0; x < s.width; ++x) {
    for (int k = 0; k < M; ++k) out[k * s.plane + x] = pixels[kLanes * x + k];
  }
}

// M channels of the warp, from the first that `in(k)` reads, to `image` [M, H, W].
template <int M, class T, class In>
void warp(Scratch<T>& s, const Row<T>& r, const In& in, T* image) {
  interleave<M>(s, in, 1, 2);
  const int width = s.width, height = s.height, pitch = width + 3;
  const PixelOf<T>* origin = s.grid + pitch + 1;
  T* __restrict fx = s.helpers;
  T* __restrict fy = s.helpers + width;
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
    for (int x = 0; x < width; ++x) {
      const PixelOf<T>* p = origin + index[x];
      s.line[x] = bilinear(fx[x], fy[x], p[0], p[1], p[pitch], p[pitch + 1]);
    }
    separate<M>(s, image + int64_t(y) * width);
  }
}

// Transpose of warp(): every source pixel gathers from the window of result pixels that can have sampled it.
template <int M, class T, class In>
void warp_adjoint(Scratch<T>& s, const Row<T>& r, const In& in, T* image) {
  const Window<T> w = window_of(r);
  const int border = w.nx > w.ny ? w.nx : w.ny;
  interleave<M>(s, in, border, border);
  const int width = s.width, height = s.height, pitch = width + 2 * border;
  const PixelOf<T>* origin = s.grid + int64_t(border) * pitch + border;
  T* __restrict dx = s.helpers;
  T* __restrict dy = s.helpers + width;
  T* __restrict weights = s.helpers + 2 * width;  // [ny * nx, W]
  int* __restrict index = s.index;
  for (int v = 0; v < height; ++v) {
    for (int u = 0; u < width; ++u) {
      int x = first_x(r, w, u, v, width), y = first_y(r, w, u, v, height);
      dx[u] = offset_x(r, x, y, u);
      dy[u] = offset_y(r, x, y, v);
      // A window that lies outside altogether is moved to the border, where gradients are zero.
      x = x < -border ? -border : x > width ? width : x;
      y = y < -border ? -border : y > height ? height : y;
      index[u] = y * pitch + x;
    }
    for (int j = 0, k = 0; j < w.ny; ++j) {
      for (int i = 0; i < w.nx; ++i, ++k) {
        T* __restrict weight = weights + k * width;
        for (int u = 0; u < width; ++u) weight[u] = weight_of(r, dx[u], dy[u], i, j);
      }
    }
    for (int u = 0; u < width; ++u) {
      const PixelOf<T>* p = origin + index[u];
      PixelOf<T> sum = {};
      for (int j = 0, k = 0; j < w.ny; ++j) {
        for (int i = 0; i < w.nx; ++i, ++k) sum += weights[k * width + u] * p[j * pitch + i];
      }
      s.line[u] = sum;
    }
    separate<M>(s, image + int64_t(v) * width);
  }
}

// Calls step<M>(first channel) for groups of up to four channels.
template <class Step>
void for_groups(int channels, const Step& step) {
  for (int c = 0; c < channels; c += kLanes) {
    switch (channels - c) {
      case 1: step.template operator()<1>(c); break;
      case 2: step.template operator()<2>(c); break;
      case 3: step.template operator()<3>(c); break;
      default: step.template operator()<4>(c);
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
  Scratch<T> s(call, false);
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
      for_groups(s.channels, [&]<int M>(int c) {
        warp<M>(s, r, [&](int k) { return reader<T, In>(call, n, c + k, s.plane); }, image + c * s.plane);
      });
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
  Scratch<T> s(call, true);
  if (s.memory == nullptr) return false;
  const int64_t count = s.channels * s.plane;
  for (int64_t n = begin; n < end; ++n) {
    const Row<T> r = row_of<T>(call, n);
    T* image = target<T, In>(call, s, n);
    const Reader<T, In> in = reader<T, In>(call, n, 0, s.plane);
    for (int64_t i = 0; i < count; ++i) s.coloured[i] = in(i);
    cut(s.coloured, r, s.channels, s.height, s.width);
    contrast(s.coloured, count, r.contrast);
    saturate(s.coloured, s.channels, s.plane, r.saturation);
    const auto channel = [&](int c) { return Reader<T, T>{s.coloured + c * s.plane}; };
    if (moves_pixels(r)) {
      const int a = static_cast<int>(r.a), e = static_cast<int>(r.e);
      const int c = -a * static_cast<int>(r.c), f = -e * static_cast<int>(r.f);
      for (int k = 0; k < s.channels; ++k) move(channel(k), image + k * s.plane, s.height, s.width, a, c, e, f);
    } else {
      for_groups(s.channels, [&]<int M>(int c) {
        warp_adjoint<M>(s, r, [&](int k) { return channel(c + k); }, image + c * s.plane);
      });
    }
    store<T, In>(call, s, n);
  }
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
