// Compiled once per instruction set (FASTDD_VARIANT); see segment_mean_cpu.cpp for what that forbids.
//
// An image is a few kilobytes, so its steps follow one another in the first-level cache, and only those that a parameter row
// asks for: whole-pixel moves and an identity matrix are copies, colours of one leave the pixels alone.
#include "augment_cpu.h"

#include <cstdlib>
#include <cstring>

#include "augment_math.h"
#include "lanes.h"

namespace fastdd {
namespace {

// Four channels of a pixel. The warp is a walk over scattered pixels: interleaved, one load brings all channels.
constexpr int kChannels = 4;

template <class T>
struct Pixel {
  // Less aligned than its size, so that plain malloc will do.
  typedef T type __attribute__((vector_size(kChannels * sizeof(T)), aligned(sizeof(T))));
};

template <class T>
using PixelOf = typename Pixel<T>::type;

// Pixels of a row whose coordinates and weights are computed together.
constexpr int kBlock = 16;

// One thread's buffers.
template <class T>
struct Scratch {
  int channels, height, width;
  int64_t plane, count;
  T* source;         // [C, H, W]
  T* image;          // [C, H, W]
  PixelOf<T>* grid;  // an interleaved image with a zero border
  void* memory;

  Scratch(const AugmentCall& call, bool adjoint)
      : channels(call.channels), height(call.height), width(call.width), plane(int64_t(call.height) * call.width),
        count(channels * plane) {
    const int border = adjoint ? 2 * kLargestWindow : 3;
    memory = std::malloc((2 * count + kChannels * (size_t(height + border) * (width + border))) * sizeof(T));
    source = static_cast<T*>(memory);
    image = source + count;
    grid = reinterpret_cast<PixelOf<T>*>(image + count);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(memory); }
};

// The pixels of image n in the computing type: the caller's own, or converted into `to`.
template <class T, class In>
const T* pixels_of(const AugmentCall& call, int64_t n, T* to) {
  const int64_t plane = int64_t(call.height) * call.width, count = call.channels * plane;
  const In* in = static_cast<const In*>(call.in) + n * count;
  if constexpr (sizeof(In) == 1) {
    for (int c = 0; c < call.channels; ++c) {
      const T* table = static_cast<const T*>(call.normalised) + 256 * c;
      for (int64_t i = c * plane; i < (c + 1) * plane; ++i) to[i] = table[in[i]];
    }
    return to;
  } else if constexpr (sizeof(In) != sizeof(T)) {
    for_lanes<In>(count, [&](int64_t i, auto part) { part.store(to + i, part.load(in + i)); });
    return to;
  } else {
    return in;
  }
}

inline bool whole(float v) { return v > -1e6f && v < 1e6f && v == static_cast<float>(static_cast<int>(v)); }
inline bool whole(double v) { return v > -1e6 && v < 1e6 && v == static_cast<double>(static_cast<int>(v)); }

// A shift by whole pixels, mirrored or not: copied, not interpolated.
template <class T>
bool moves_pixels(const Row<T>& r) {
  return r.b == 0 && r.d == 0 && (r.a == 1 || r.a == -1) && (r.e == 1 || r.e == -1) && whole(r.c) && whole(r.f);
}

template <class T>
bool keeps_pixels(const Row<T>& r) {
  return r.a == 1 && r.b == 0 && r.c == 0 && r.d == 0 && r.e == 1 && r.f == 0;
}

inline int between(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// out[y][x] = in[sy * y + ty][sx * x + tx], zeros outside.
template <class T>
void move(const T* in, T* out, int height, int width, int sx, int tx, int sy, int ty) {
  const int first = between(sx > 0 ? -tx : tx - (width - 1), 0, width);
  const int last = between(sx > 0 ? width - tx : tx + 1, first, width);
  for (int y = 0; y < height; ++y, out += width) {
    const int v = sy * y + ty;
    if (v < 0 || v >= height) {
      std::memset(out, 0, width * sizeof(T));
      continue;
    }
    for (int x = 0; x < first; ++x) out[x] = T(0);
    const T* start = in + int64_t(v) * width + tx;
    if (sx > 0) {
      for (int x = first; x < last; ++x) out[x] = start[x];
    } else {
      for (int x = first; x < last; ++x) out[x] = start[-x];
    }
    for (int x = last; x < width; ++x) out[x] = T(0);
  }
}

template <class T>
T mean_of(const T* in, int64_t count) {
  constexpr int64_t run = 1024;  // summed in T, then added to double
  double total = 0;
  for (int64_t start = 0; start < count; start += run) {
    typename Lanes<T>::Vector sums = {};
    for_lanes<T>(count - start < run ? count - start : run, [&](int64_t i, auto part) { sums += part.load(in + start + i); });
    for (int k = 0; k < Lanes<T>::kCount; ++k) total += sums[k];
  }
  return static_cast<T>(total / static_cast<double>(count));
}

template <class T>
bool colours(const Row<T>& r) {
  return r.brightness != 0 || r.saturation != 1 || r.contrast != 1;
}

// Brightness, saturation and contrast; in may be out. Without brightness symmetric, so the adjoint uses it too.
template <class T>
void colour(const T* in, T* out, int channels, int64_t plane, const Row<T>& r) {
  using V = typename Lanes<T>::Vector;
  // Saturation keeps the mean over channels, and so the mean over the image.
  const T mean = r.contrast == 1 ? T(0) : mean_of(in, channels * plane) + r.brightness;
  const T share = T(1) / static_cast<T>(channels);
  for_lanes<T>(plane, [&](int64_t i, auto part) {
    V grey = {};
    for (int c = 0; c < channels; ++c) grey += part.load(in + c * plane + i);
    grey = grey * share + r.brightness;
    for (int c = 0; c < channels; ++c) {
      V v = part.load(in + c * plane + i) + r.brightness;
      if (channels > 1 && r.saturation != 1) v = (v - grey) * r.saturation + grey;
      if (r.contrast != 1) v = (v - mean) * r.contrast + mean;
      part.store(out + c * plane + i, v);
    }
  });
}

template <class T>
bool cuts(const Row<T>& r) {
  return r.top < r.bottom && r.left < r.right;
}

template <class T>
void cut(T* image, const Row<T>& r, int channels, int height, int width) {
  if (!cuts(r)) return;
  for (int c = 0; c < channels; ++c) {
    for (int y = r.top; y < r.bottom; ++y) {
      std::memset(image + (int64_t(c) * height + y) * width + r.left, 0, (r.right - r.left) * sizeof(T));
    }
  }
}

template <class V>
inline void transpose(V& a, V& b, V& c, V& d) {
  const V ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const V ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  a = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
  b = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  c = __builtin_shufflevector(ef, gh, 0, 1, 4, 5);
  d = __builtin_shufflevector(ef, gh, 2, 3, 6, 7);
}

// Fills s.grid with the M channels at `in`, with `before` and `after` zero pixels around.
template <int M, class T>
void interleave(Scratch<T>& s, const T* in, int before, int after) {
  using V = PixelOf<T>;
  const int pitch = s.width + before + after;
  std::memset(static_cast<void*>(s.grid), 0, sizeof(V) * (pitch * before));
  std::memset(static_cast<void*>(s.grid + int64_t(pitch) * (s.height + before)), 0, sizeof(V) * (pitch * after));
  for (int y = 0; y < s.height; ++y) {
    V* out = s.grid + int64_t(y + before) * pitch;
    for (int x = 0; x < before; ++x) out[x] = V{};
    for (int x = s.width + before; x < pitch; ++x) out[x] = V{};
    out += before;
    const T* row = in + int64_t(y) * s.width;
    int x = 0;
    for (; x + 4 <= s.width; x += 4) {
      V p[4] = {};
      for (int c = 0; c < M; ++c) std::memcpy(&p[c], row + c * s.plane + x, sizeof(V));
      transpose(p[0], p[1], p[2], p[3]);
      for (int k = 0; k < 4; ++k) out[x + k] = p[k];
    }
    for (; x < s.width; ++x) {
      V p = {};
      for (int c = 0; c < M; ++c) p[c] = row[c * s.plane + x];
      out[x] = p;
    }
  }
}

// Writes pixel(0), pixel(1) ... to the M planes at out, up to kBlock of them.
template <int M, class T, class Sample>
inline void write_block(T* out, int64_t plane, int count, const Sample& pixel) {
  using V = PixelOf<T>;
  count = count < kBlock ? count : kBlock;
  int k = 0;
  for (; k + 4 <= count; k += 4) {
    V p[4] = {pixel(k), pixel(k + 1), pixel(k + 2), pixel(k + 3)};
    transpose(p[0], p[1], p[2], p[3]);
    for (int c = 0; c < M; ++c) std::memcpy(out + c * plane + k, &p[c], sizeof(V));
  }
  for (; k < count; ++k) {
    const V p = pixel(k);
    for (int c = 0; c < M; ++c) out[c * plane + k] = p[c];
  }
}

// M channels of the warp.
template <int M, class T>
void warp(Scratch<T>& s, const Row<T>& r, const T* in, T* image) {
  interleave<M>(s, in, 1, 2);
  const int width = s.width, height = s.height, pitch = width + 3;
  const PixelOf<T>* origin = s.grid + pitch + 1;
  T fx[kBlock], fy[kBlock];
  int index[kBlock];
  for (int y = 0; y < height; ++y) {
    const T x0 = r.b * T(y) + r.c, y0 = r.e * T(y) + r.f;
    for (int start = 0; start < width; start += kBlock) {
      for (int k = 0; k < kBlock; ++k) {
        const T x = T(start + k);
        const T sx = to_border(r.a * x + x0, width);
        const T sy = to_border(r.d * x + y0, height);
        const int u = floor_of(sx), v = floor_of(sy);
        fx[k] = sx - T(u);
        fy[k] = sy - T(v);
        index[k] = v * pitch + u;
      }
      write_block<M>(image + int64_t(y) * width + start, s.plane, width - start, [&](int k) {
        const PixelOf<T>* p = origin + index[k];
        return bilinear(fx[k], fy[k], p[0], p[1], p[pitch], p[pitch + 1]);
      });
    }
  }
}

// Transpose of warp(): every source pixel gathers from the window of result pixels that can have sampled it. K is the side
// of the window; 0 leaves it to the row.
template <int M, int K, class T>
void warp_adjoint(Scratch<T>& s, const Row<T>& r, const Window<T>& w, const T* in, T* image) {
  const int nx = K > 0 ? K : w.nx, ny = K > 0 ? K : w.ny;
  const int border = nx > ny ? nx : ny;
  interleave<M>(s, in, border, border);
  const int width = s.width, height = s.height, pitch = width + 2 * border;
  const PixelOf<T>* origin = s.grid + int64_t(border) * pitch + border;
  T dx[kBlock], dy[kBlock], weights[K > 0 ? K * K : kLargestWindow * kLargestWindow][kBlock];
  int index[kBlock];
  for (int v = 0; v < height; ++v) {
    for (int start = 0; start < width; start += kBlock) {
      for (int k = 0; k < kBlock; ++k) {
        const int u = start + k;
        const int x = first_x(r, w, u, v, width), y = first_y(r, w, u, v, height);
        dx[k] = offset_x(r, x, y, u);
        dy[k] = offset_y(r, x, y, v);
        // A window that lies outside altogether is moved to the border, where gradients are zero.
        index[k] = between(y, -border, height) * pitch + between(x, -border, width);
      }
      for (int j = 0; j < ny; ++j) {
        for (int i = 0; i < nx; ++i) {
          T* weight = weights[j * nx + i];
          for (int k = 0; k < kBlock; ++k) weight[k] = weight_of(r, dx[k], dy[k], i, j);
        }
      }
      write_block<M>(image + int64_t(v) * width + start, s.plane, width - start, [&](int k) {
        const PixelOf<T>* p = origin + index[k];
        PixelOf<T> sum = {};
        for (int j = 0; j < ny; ++j) {
          for (int i = 0; i < nx; ++i) sum += weights[j * nx + i][k] * p[j * pitch + i];
        }
        return sum;
      });
    }
  }
}

// Calls step<M>(first channel) for groups of up to four channels.
template <class Step>
void for_groups(int channels, const Step& step) {
  for (int c = 0; c < channels; c += kChannels) {
    switch (channels - c) {
      case 1: step.template operator()<1>(c); break;
      case 2: step.template operator()<2>(c); break;
      case 3: step.template operator()<3>(c); break;
      default: step.template operator()<4>(c);
    }
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
    return static_cast<T*>(call.out) + image * s.count;
  } else {
    return s.image;
  }
}

template <class T, class Out>
void store(const AugmentCall& call, Scratch<T>& s, int64_t image) {
  if constexpr (sizeof(T) != sizeof(Out)) {
    Out* out = static_cast<Out*>(call.out) + image * s.count;
    for_lanes<Out>(s.count, [&](int64_t i, auto part) { part.store(out + i, part.load(s.image + i)); });
  }
}

template <class T, class In, class Out>
bool forward(const AugmentCall& call, int64_t begin, int64_t end) {
  Scratch<T> s(call, false);
  if (s.memory == nullptr) return false;
  for (int64_t n = begin; n < end; ++n) {
    const Row<T> r = row_of<T>(call, n);
    T* image = target<T, Out>(call, s, n);
    const bool kept = keeps_pixels(r);
    const T* pixels = pixels_of<T, In>(call, n, kept ? image : s.source);
    if (kept) {
      // Nothing to warp.
    } else if (moves_pixels(r)) {
      for (int c = 0; c < s.channels; ++c) {
        move(pixels + c * s.plane, image + c * s.plane, s.height, s.width, static_cast<int>(r.a), static_cast<int>(r.c),
             static_cast<int>(r.e), static_cast<int>(r.f));
      }
      pixels = image;
    } else {
      for_groups(s.channels, [&]<int M>(int c) { warp<M>(s, r, pixels + c * s.plane, image + c * s.plane); });
      pixels = image;
    }
    if (colours(r)) {
      colour(pixels, image, s.channels, s.plane, r);
    } else if (pixels != image) {
      std::memcpy(image, pixels, s.count * sizeof(T));
    }
    cut(image, r, s.channels, s.height, s.width);
    store<T, Out>(call, s, n);
  }
  return true;
}

template <class T, class In>
bool adjoint(const AugmentCall& call, int64_t begin, int64_t end) {
  Scratch<T> s(call, true);
  if (s.memory == nullptr) return false;
  for (int64_t n = begin; n < end; ++n) {
    const Row<T> r = row_of<T>(call, n);
    T* image = target<T, In>(call, s, n);
    const bool kept = keeps_pixels(r);
    T* work = kept ? image : s.source;
    const T* pixels = pixels_of<T, In>(call, n, work);
    if (pixels != work && (kept || cuts(r))) {
      std::memcpy(work, pixels, s.count * sizeof(T));
      pixels = work;
    }
    if (cuts(r)) cut(work, r, s.channels, s.height, s.width);
    if (colours(r)) {
      colour(pixels, work, s.channels, s.plane, r);
      pixels = work;
    }
    if (!kept) {
      if (moves_pixels(r)) {
        const int a = static_cast<int>(r.a), e = static_cast<int>(r.e);
        const int c = -a * static_cast<int>(r.c), f = -e * static_cast<int>(r.f);
        for (int k = 0; k < s.channels; ++k) move(pixels + k * s.plane, image + k * s.plane, s.height, s.width, a, c, e, f);
      } else {
        const Window<T> w = window_of(r);
        for_groups(s.channels, [&]<int M>(int c) {
          if (w.nx <= 3 && w.ny <= 3) {
            warp_adjoint<M, 3>(s, r, w, pixels + c * s.plane, image + c * s.plane);
          } else {
            warp_adjoint<M, 0>(s, r, w, pixels + c * s.plane, image + c * s.plane);
          }
        });
      }
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
