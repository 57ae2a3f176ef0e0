// Compiled once per instruction set (FASTDD_VARIANT); see segment_mean_cpu.cpp for what that forbids.
//
// An image is a few kilobytes, so its steps follow one another in the first-level cache, and only those that a parameter row
// asks for: whole-pixel moves and an identity matrix are copies, colours of one leave the pixels alone.
#include "augment_cpu.h"

#include <cstdlib>
#include <cstring>

#include "augment_math.h"
#include "formation_image.h"
#include "lanes.h"

#ifdef __AVX512F__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // gcc 12 warns of its own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

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

// The next multiple of four.
constexpr int in_fours(int n) { return (n + 3) / 4 * 4; }

// One thread's buffers.
template <class T>
struct Scratch {
  int channels, height, width, padded;
  int64_t plane, count;
  T* source;         // [C, H, W]
  T* image;          // [C, H, W]
  PixelOf<T>* grid;  // an interleaved image with a zero border
  T *fx, *fy;        // where two rows of the result sample: [2, W], W in whole blocks
  int* index;
  T* decoding;  // what enlarge() and shrink() work in
  void* memory;

  Scratch(const AugmentCall& call, bool adjoint)
      : channels(call.channels), height(call.height), width(call.width), padded((width + kBlock - 1) / kBlock * kBlock),
        plane(int64_t(height) * width), count(channels * plane) {
    const int border = adjoint ? 2 * kLargestWindow : 3;
    const size_t pixels = size_t(height + border) * (width + border) + kBlock;  // blocks are written whole
    const size_t located = adjoint ? 0 : size_t(2) * padded;
    const size_t decoded = call.formation == nullptr ? 0 : formation_scratch(*call.formation);
    memory = std::malloc((2 * count + kChannels * pixels + 2 * located + decoded) * sizeof(T) + located * sizeof(int));
    source = static_cast<T*>(memory);
    image = source + count;
    grid = reinterpret_cast<PixelOf<T>*>(image + count);
    fx = reinterpret_cast<T*>(grid + pixels);
    fy = fx + located;
    decoding = fy + located;
    index = reinterpret_cast<int*>(decoding + decoded);
  }
  Scratch(const Scratch&) = delete;
  ~Scratch() { std::free(memory); }
};

// Four elements out of a's, which are numbers 0 to 3, and b's.
template <int I, int J, int K, int L, class V>
FASTDD_HD V pick(V a, V b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, I, J, K, L);
#else  // gcc has the other only since 12
  const decltype(a < b) lanes = {I, J, K, L};
  return __builtin_shuffle(a, b, lanes);
#endif
}

// What is done with kBlock pixels of a row at a time, or the first `count` of them (indices, offsets and weights are there for all),
// and M channels. Inlined: a call would load the constants of every shuffle again.
template <class T>
struct Block {
  using V = PixelOf<T>;

  static void transpose(V (&p)[4]) {
    const V ab = pick<0, 4, 1, 5>(p[0], p[1]), cd = pick<0, 4, 1, 5>(p[2], p[3]);
    const V ef = pick<2, 6, 3, 7>(p[0], p[1]), gh = pick<2, 6, 3, 7>(p[2], p[3]);
    p[0] = pick<0, 1, 4, 5>(ab, cd);
    p[1] = pick<2, 3, 6, 7>(ab, cd);
    p[2] = pick<0, 1, 4, 5>(ef, gh);
    p[3] = pick<2, 3, 6, 7>(ef, gh);
  }

  // out[k] = last[-k]
  static void reverse(const T* last, T* out) {
    for (int k = 0; k < kBlock; k += 4) {
      V four;
      std::memcpy(&four, last - k - 3, sizeof four);
      four = pick<3, 2, 1, 0>(four, four);
      std::memcpy(out + k, &four, sizeof four);
    }
  }

  // Planes to pixels. Up to kBlock pixels at out are written, those from `count` on with zeros.
  template <int M>
  [[gnu::always_inline]] static void interleave(const T* in, int64_t plane, int count, V* out) {
    int x = 0;
    for (; x + 4 <= count; x += 4) {
      V p[4] = {};
      for (int c = 0; c < M; ++c) std::memcpy(&p[c], in + c * plane + x, sizeof(V));
      transpose(p);
      std::memcpy(out + x, p, sizeof p);
    }
    for (; x < count; ++x) {
      V p = {};
      for (int c = 0; c < M; ++c) p[c] = in[c * plane + x];
      out[x] = p;
    }
  }

  // Pixels, given four at a time, to planes.
  template <int M, class Four>
  [[gnu::always_inline]] static void separate(const Four& four, T* out, int64_t plane, int count) {
    for (int k = 0; k < count; k += 4) {
      V p[4];
      four(k, p);
      transpose(p);
      for (int c = 0; c < M; ++c) {
        if (k + 4 <= count) {
          std::memcpy(out + c * plane + k, &p[c], sizeof(V));
        } else {
          std::memcpy(out + c * plane + k, &p[c], (count - k) * sizeof(T));
        }
      }
    }
  }

  // Interpolates pixel k at offset fx, fy from the grid's pixel at index[k].
  template <int M>
  [[gnu::always_inline]] static void sample(const V* grid, int pitch, const int* index, const T* fx, const T* fy, T* out,
                                            int64_t plane, int count) {
    separate<M>(
        [&](int k, V (&p)[4]) {
          for (int i = 0; i < 4; ++i) {
            const V* at = grid + index[k + i];
            p[i] = bilinear(fx[k + i], fy[k + i], at[0], at[1], at[pitch], at[pitch + 1]);
          }
        },
        out, plane, count);
  }

  // Sums windows of nx by ny pixels, at most K by K, that of pixel k from the grid's pixel at index[k] on, with weights
  // [ny][in_fours(K)][kBlock], zero from column nx on.
  template <int M, int K>
  [[gnu::always_inline]] static void gather(const V* grid, int pitch, const int* index, const T (*weights)[kBlock], int nx,
                                            int ny, T* out, int64_t plane, int count) {
    separate<M>(
        [&](int k, V (&p)[4]) {
          for (int i = 0; i < 4; ++i) p[i] = V{};
          for (int j = 0; j < ny; ++j) {
            for (int i = 0; i < nx; ++i) {
              const T* weight = weights[j * in_fours(K) + i] + k;
              for (int l = 0; l < 4; ++l) p[l] += weight[l] * grid[index[k + l] + j * pitch + i];
            }
          }
        },
        out, plane, count);
  }
};

#ifdef __AVX512F__
// Four pixels to a register.
template <>
struct Block<float> {
  using V = PixelOf<float>;

  static __mmask16 mask(int count) { return static_cast<__mmask16>((1 << count) - 1); }

  static void reverse(const float* last, float* out) {
    const __m512i lanes = _mm512_setr_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(lanes, _mm512_loadu_ps(last - 15)));
  }

  template <int M>
  [[gnu::always_inline]] static void interleave(const float* in, int64_t plane, int count, V* out) {
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    __m512 channel[M];
    for (int c = 0; c < M; ++c) channel[c] = _mm512_maskz_loadu_ps(mask(count), in + c * plane);
    for (int k = 0; k < 4; ++k) {
      const __m512i which = _mm512_add_epi32(spread, _mm512_set1_epi32(4 * k));
      __m512 p = _mm512_maskz_permutexvar_ps(0x1111, which, channel[0]);
      for (int c = 1; c < M; ++c) p = _mm512_mask_permutexvar_ps(p, 0x1111 << c, which, channel[c]);
      _mm512_storeu_ps(out + 4 * k, p);
    }
  }

  template <int M>
  [[gnu::always_inline]] static void separate(const __m512 (&four)[4], float* out, int64_t plane, int count) {
    const __m512i channel = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    for (int c = 0; c < M; ++c) {
      const __m512i which = _mm512_add_epi32(channel, _mm512_set1_epi32(c));
      __m512 p = _mm512_permutexvar_ps(which, four[0]);
      for (int k = 1; k < 4; ++k) p = _mm512_mask_permutexvar_ps(p, 0xf << (4 * k), which, four[k]);
      _mm512_mask_storeu_ps(out + c * plane, mask(count), p);
    }
  }

  // Two taps of pixel a and two of pixel b.
  static __m512 taps(const V* a, const V* b) {
    const __m512 first = _mm512_castps256_ps512(_mm256_loadu_ps(reinterpret_cast<const float*>(a)));
    return _mm512_insertf32x8(first, _mm256_loadu_ps(reinterpret_cast<const float*>(b)), 1);
  }

  template <int M>
  [[gnu::always_inline]] static void sample(const V* grid, int pitch, const int* index, const float* fx, const float* fy,
                                            float* out, int64_t plane, int count) {
    const __m512i two = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512 across = _mm512_loadu_ps(fx), down = _mm512_loadu_ps(fy);
    __m512 four[4];
    for (int k = 0; k < 4; ++k) {
      __m512 row[2];
      for (int i = 0; i < 2; ++i) {
        const int at = 4 * k + 2 * i;
        const V *a = grid + index[at], *b = grid + index[at + 1];
        const __m512 above = taps(a, b), below = taps(a + pitch, b + pitch);
        const __m512 weight = _mm512_permutexvar_ps(_mm512_add_epi32(two, _mm512_set1_epi32(at)), down);
        row[i] = _mm512_fmadd_ps(weight, _mm512_sub_ps(below, above), above);
      }
      const __m512 left = _mm512_shuffle_f32x4(row[0], row[1], 0x88), right = _mm512_shuffle_f32x4(row[0], row[1], 0xdd);
      const __m512 weight = _mm512_permutexvar_ps(_mm512_add_epi32(spread, _mm512_set1_epi32(4 * k)), across);
      four[k] = _mm512_fmadd_ps(weight, _mm512_sub_ps(right, left), left);
    }
    separate<M>(four, out, plane, count);
  }

  template <int M, int K>
  [[gnu::always_inline]] static void gather(const V* grid, int pitch, const int* index, const float (*weights)[kBlock],
                                            int nx, int ny, float* out, int64_t plane, int count) {
    const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    V of[K][in_fours(K) / 4][kBlock];  // four weights of a window's row
    for (int j = 0; j < ny; ++j) {
      for (int i = 0; i < nx; i += 4) interleave<4>(weights[j * in_fours(K) + i], kBlock, kBlock, of[j][i / 4]);
    }
    __m512 four[4];
    for (int k = 0; k < 4; ++k) {
      __m512 sum[4] = {};
      for (int j = 0; j < ny; ++j) {
        for (int i = 0; i < nx; i += 4) {
          const __m512 weight = _mm512_loadu_ps(of[j][i / 4] + 4 * k);
          for (int l = 0; l < 4; ++l) {
            const __m512 p = _mm512_loadu_ps(grid + index[4 * k + l] + j * pitch + i);
            const __m512i which = _mm512_add_epi32(spread, _mm512_set1_epi32(4 * l));
            sum[l] = _mm512_fmadd_ps(_mm512_permutexvar_ps(which, weight), p, sum[l]);
          }
        }
      }
      const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(sum[0], sum[1], 0x44), _mm512_shuffle_f32x4(sum[0], sum[1], 0xee));
      const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(sum[2], sum[3], 0x44), _mm512_shuffle_f32x4(sum[2], sum[3], 0xee));
      four[k] = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    }
    separate<M>(four, out, plane, count);
  }
};
#endif

// The pixels of image n in the computing type: the caller's own, or converted or decoded into `to`.
template <class T, class In>
const T* pixels_of(const AugmentCall& call, const Scratch<T>& s, int64_t n, T* to) {
  if constexpr (sizeof(In) > 1) {
    if (call.formation != nullptr) {
      enlarge<T, In>(*call.formation, n, s.decoding, to);
      return to;
    }
  }
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

// A shift by whole pixels, mirrored or not: copied, not interpolated. The identity is one.
template <class T>
bool moves_pixels(const Row<T>& r) {
  return r.b == 0 && r.d == 0 && (r.a == 1 || r.a == -1) && (r.e == 1 || r.e == -1) && whole(r.c) && whole(r.f);
}

template <class T>
bool keeps_pixels(const Row<T>& r) {
  return r.a == 1 && r.b == 0 && r.c == 0 && r.d == 0 && r.e == 1 && r.f == 0;
}

inline int least(int a, int b) { return a < b ? a : b; }

inline int between(int value, int low, int high) { return value < low ? low : value > high ? high : value; }

// out[y][x] = in[y + ty][x + tx], zeros outside: one run of memory, but for the columns that it brings from a neighbouring row.
template <class T>
void shift(const T* in, T* out, int height, int width, int tx, int ty) {
  const int64_t plane = int64_t(height) * width;
  if (tx <= -width || tx >= width || ty <= -height || ty >= height) {
    std::memset(out, 0, plane * sizeof(T));
    return;
  }
  const int64_t offset = int64_t(ty) * width + tx;
  const int64_t first = offset < 0 ? -offset : 0, last = offset > 0 ? plane - offset : plane;
  std::memset(out, 0, first * sizeof(T));
  std::memcpy(out + first, in + first + offset, (last - first) * sizeof(T));
  std::memset(out + last, 0, (plane - last) * sizeof(T));
  const int left = tx > 0 ? width - tx : 0, right = tx > 0 ? width : -tx;
  for (int x = left; x < right; ++x) {
    for (int y = 0; y < height; ++y) out[int64_t(y) * width + x] = T(0);
  }
}

// out[y][x] = in[sy * y + ty][sx * x + tx], zeros outside.
template <class T>
void mirror(const T* in, T* __restrict out, int height, int width, int sx, int tx, int sy, int ty) {
  const int first = between(sx > 0 ? -tx : tx - (width - 1), 0, width);
  const int last = between(sx > 0 ? width - tx : tx + 1, first, width);
  for (int y = 0; y < height; ++y, out += width) {
    const int v = sy * y + ty;
    const T* start = in + int64_t(v) * width + tx;
    int x = v < 0 || v >= height ? width : first;
    for (int k = 0; k < x; ++k) out[k] = T(0);
    for (; sx < 0 && x + kBlock <= last; x += kBlock) Block<T>::reverse(start - x, out + x);
    for (; x < last; ++x) out[x] = start[sx * x];
    for (; x < width; ++x) out[x] = T(0);
  }
}

// A row's whole-pixel move of all channels, or its transpose.
template <class T>
void move(const T* in, T* out, int channels, int height, int width, const Row<T>& r, bool transposed) {
  const int sx = static_cast<int>(r.a), sy = static_cast<int>(r.e);
  const int tx = static_cast<int>(transposed ? -r.a * r.c : r.c), ty = static_cast<int>(transposed ? -r.e * r.f : r.f);
  for (int c = 0; c < channels; ++c, in += int64_t(height) * width, out += int64_t(height) * width) {
    if (sx > 0 && sy > 0) {
      shift(in, out, height, width, tx, ty);
    } else {
      mirror(in, out, height, width, sx, tx, sy, ty);
    }
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
      if (channels > 1 && r.saturation != 1) v = about_mean(v, grey, r.saturation);
      if (r.contrast != 1) v = about_mean(v, mean, r.contrast);
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

// Fills s.grid with the M channels at `in`, with `before` and `after` zero pixels around.
template <int M, class T>
void interleave(Scratch<T>& s, const T* in, int before, int after) {
  using V = PixelOf<T>;
  const int gap = before + after, pitch = s.width + gap;
  V* row = s.grid + int64_t(before) * pitch + before;
  std::memset(static_cast<void*>(s.grid), 0, reinterpret_cast<char*>(row) - reinterpret_cast<char*>(s.grid));
  for (int y = 0; y < s.height; ++y, row += pitch, in += s.width) {
    for (int x = 0; x < s.width; x += kBlock) Block<T>::template interleave<M>(in + x, s.plane, least(kBlock, s.width - x), row + x);
    for (int x = 0; x < gap; ++x) row[s.width + x] = V{};
  }
  // From the end of the last row; and what a window read in fours takes from behind the grid, times zero.
  std::memset(static_cast<void*>(row - before), 0, sizeof(V) * (pitch * after + 4));
}

// Where the pixels of row y sample.
template <class T>
void locate(Scratch<T>& s, const Row<T>& r, int y) {
  const int width = s.width, height = s.height, padded = s.padded, pitch = width + 3;
  const T a = r.a, d = r.d, x0 = r.b * T(y) + r.c, y0 = r.e * T(y) + r.f;
  T *__restrict fx = s.fx + y % 2 * padded, *__restrict fy = s.fy + y % 2 * padded;
  int* __restrict index = s.index + y % 2 * padded;
  for (int x = 0; x < padded; ++x) {
    const T sx = to_border(a * T(x) + x0, width);
    const T sy = to_border(d * T(x) + y0, height);
    const int u = floor_of(sx), v = floor_of(sy);
    fx[x] = sx - T(u);
    fy[x] = sy - T(v);
    index[x] = v * pitch + u;
  }
}

// M channels of the warp.
template <int M, class T>
void warp(Scratch<T>& s, const Row<T>& r, const T* in, T* image) {
  interleave<M>(s, in, 1, 2);
  const int pitch = s.width + 3;
  const PixelOf<T>* origin = s.grid + pitch + 1;
  locate(s, r, 0);
  for (int y = 0; y < s.height; ++y) {
    locate(s, r, y + 1);  // a row ahead: loads wait long for addresses that have just been written
    for (int x = 0; x < s.width; x += kBlock) {
      const int at = y % 2 * s.padded + x;
      Block<T>::template sample<M>(origin, pitch, s.index + at, s.fx + at, s.fy + at, image + int64_t(y) * s.width + x, s.plane,
                                   least(kBlock, s.width - x));
    }
  }
}

// Transpose of warp(): every source pixel gathers from the window of result pixels that can have sampled it, at most K by K.
template <int M, int K, class T>
void warp_adjoint(Scratch<T>& s, const Row<T>& r, const Window<T>& w, const T* in, T* image) {
  const int nx = K == kLargestWindow ? w.nx : K, ny = K == kLargestWindow ? w.ny : K, border = nx > ny ? nx : ny;
  interleave<M>(s, in, border, border);
  const int width = s.width, height = s.height, pitch = width + 2 * border;
  const PixelOf<T>* origin = s.grid + int64_t(border) * pitch + border;
  T dx[kBlock], dy[kBlock], weights[K * in_fours(K)][kBlock] = {};
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
          T* weight = weights[j * in_fours(K) + i];
          for (int k = 0; k < kBlock; ++k) weight[k] = weight_of(r, dx[k], dy[k], i, j);
        }
      }
      Block<T>::template gather<M, K>(origin, pitch, index, weights, nx, ny, image + int64_t(v) * width + start, s.plane,
                                      least(kBlock, width - start));
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
    const T* pixels = pixels_of<T, In>(call, s, n, kept ? image : s.source);
    if (!kept) {
      if (moves_pixels(r)) {
        move(pixels, image, s.channels, s.height, s.width, r, false);
      } else {
        for_groups(s.channels, [&]<int M>(int c) { warp<M>(s, r, pixels + c * s.plane, image + c * s.plane); });
      }
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

// image = the transpose of augmenting image n, of the gradients [C, H, W] at `in`.
template <class T, class In>
void adjoint_image(const AugmentCall& call, Scratch<T>& s, int64_t n, T* image) {
  const Row<T> r = row_of<T>(call, n);
  const bool kept = keeps_pixels(r);
  T* work = kept ? image : s.source;
  const T* pixels = pixels_of<T, In>(call, s, n, work);
  if (pixels != work && (kept || cuts(r))) {
    std::memcpy(work, pixels, s.count * sizeof(T));
    pixels = work;
  }
  if (cuts(r)) cut(work, r, s.channels, s.height, s.width);
  if (colours(r)) {
    colour(pixels, work, s.channels, s.plane, r);
    pixels = work;
  }
  if (kept) return;
  if (moves_pixels(r)) {
    move(pixels, image, s.channels, s.height, s.width, r, true);
    return;
  }
  const Window<T> w = window_of(r);
  for_groups(s.channels, [&]<int M>(int c) {
    if (w.nx <= 3 && w.ny <= 3) {
      warp_adjoint<M, 3>(s, r, w, pixels + c * s.plane, image + c * s.plane);
    } else {
      warp_adjoint<M, kLargestWindow>(s, r, w, pixels + c * s.plane, image + c * s.plane);
    }
  });
}

template <class T, class In>
bool adjoint(const AugmentCall& call, int64_t begin, int64_t end) {
  Scratch<T> s(call, true);
  if (s.memory == nullptr) return false;
  for (int64_t n = begin; n < end; ++n) {
    adjoint_image<T, In>(call, s, n, target<T, In>(call, s, n));
    store<T, In>(call, s, n);
  }
  return true;
}

// Of every stored image the sum over those that it was decoded into, in their order: no gradient of a decoded set is written.
template <class T, class In>
bool stored_adjoint(const AugmentCall& outer, int64_t begin, int64_t end) {
  const FormationCall& f = *outer.formation;
  Scratch<T> s(outer, true);
  if (s.memory == nullptr) return false;
  AugmentCall call = outer;
  call.formation = nullptr;  // gradients are of decoded images
  const int64_t count = int64_t(f.channels) * f.f.height * f.f.width;
  T* rounded = nullptr;
  if constexpr (sizeof(T) != sizeof(In)) {
    rounded = static_cast<T*>(std::malloc(count * sizeof(T)));
    if (rounded == nullptr) return false;
  }
  In* const out = static_cast<In*>(call.out);
  for (int64_t m = begin; m < end; ++m) {
    T* total = rounded;
    if constexpr (sizeof(T) == sizeof(In)) total = out + m * count;
    std::memset(total, 0, count * sizeof(T));
    for (int64_t k = f.offsets[m]; k < f.offsets[m + 1]; ++k) {
      adjoint_image<T, In>(call, s, f.members[k], s.image);
      shrink<T>(f, f.members[k], s.image, s.decoding, total);
    }
    if constexpr (sizeof(T) != sizeof(In)) {
      for_lanes<In>(count, [&](int64_t i, auto part) { part.store(out + m * count + i, part.load(total + i)); });
    }
  }
  std::free(rounded);
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

bool augment_stored_adjoint_images(const AugmentCall& call, int64_t begin, int64_t end) {
  switch (call.in_dtype) {
    case Dtype::f64: return stored_adjoint<double, double>(call, begin, end);
    case Dtype::bf16: return stored_adjoint<float, bf16>(call, begin, end);
    default: return stored_adjoint<float, float>(call, begin, end);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
