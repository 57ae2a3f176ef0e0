// Compiled for AVX-512 BF16 only, whose VDPBF16PS adds two products of bfloat16 to each of 16 float32 sums.
//
// From 16 input channels on, Winograd's F(2x2, 3x3) (Lavin and Gray 2016): transforms in float32, both sides of the products
// rounded to bfloat16 once, sums in float32. Larger tiles would save more, but have several times bfloat16's error
// (docs/performance.md). Below, direct, as the transforms would cost more than they save. A panel of an image's channels goes from
// the sums to the pooled result in the core's cache.
#include "conv_block_bf16.h"

#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "conv_tiles.h"

namespace fastdd {
namespace {

static_assert(kLanes == 16, "made for 512-bit registers");

// Rows of a Winograd product that share a pass over the filters.
constexpr int64_t kGroupRows = 64;
// Two bfloat16 for each column of a panel: what a step of a product reads.
constexpr int64_t kPairPanel = 2 * kPanel;
// Where smooth images have most of their energy, the mean of a 4x4 patch, the filters' rounding moves all images the same way, and
// mean embeddings with them: this frequency's filters are two bfloat16 numbers, the rounded one and what it lacks.
constexpr int kExact = 5;
constexpr int64_t kFrequencies = 17;  // of the packed filters, with the second part of that one

// Where the filters of frequency f begin, in frequencies.
inline int64_t place_of(int f) { return f > kExact ? f + 1 : f; }

inline __mmask16 lanes(int64_t count) { return count >= kLanes ? 0xffff : static_cast<__mmask16>((1u << count) - 1); }

inline __m512 widen(__mmask16 mask, const uint16_t* p) {
  return reinterpret_cast<__m512>(__builtin_convertvector(reinterpret_cast<U16>(_mm256_maskz_loadu_epi16(mask, p)), U32) << 16);
}

// NaN stays.
inline Vec positive(Vec v) { return v < 0 ? Vec{} : v; }

inline __m256i rounded(__m512 v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }

// Offsets 0, 2, ..., twice.
struct Twice {
  int64_t pairs;
  int64_t operator[](int64_t k) const { return 2 * (k < pairs ? k : k - pairs); }
};

// c[m, 0 .. kPanel) = sum over pairs k of a[m * stride + at[k]] b[k, column, 0] + a[m * stride + at[k] + 1] b[k, column, 1]
template <int M, class At>
inline void pair_product(const uint16_t* a, int64_t stride, At at, int64_t pairs, const uint16_t* b, float* c) {
  __m512 sum[M][2];
  for (int m = 0; m < M; ++m) sum[m][0] = sum[m][1] = _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; ++k) {
    const __m512bh b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + k * kPairPanel));
    const __m512bh b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + k * kPairPanel + kPanel));
    const uint16_t* from = a + at[k];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      int32_t pair;
      std::memcpy(&pair, from + m * stride, sizeof pair);
      const __m512bh value = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      sum[m][0] = _mm512_dpbf16_ps(sum[m][0], value, b0);
      sum[m][1] = _mm512_dpbf16_ps(sum[m][1], value, b1);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    _mm512_storeu_ps(c + m * kPanel, sum[m][0]);
    _mm512_storeu_ps(c + m * kPanel + kLanes, sum[m][1]);
  }
}

template <class At>
inline void pair_product_of(int64_t rows, const uint16_t* a, int64_t stride, At at, int64_t pairs, const uint16_t* b, float* c) {
  for (; rows >= 12; rows -= 12, a += 12 * stride, c += 12 * kPanel) pair_product<12>(a, stride, at, pairs, b, c);
  for (; rows >= 4; rows -= 4, a += 4 * stride, c += 4 * kPanel) pair_product<4>(a, stride, at, pairs, b, c);
  for (; rows > 0; --rows, a += stride, c += kPanel) pair_product<1>(a, stride, at, pairs, b, c);
}

// Instance norm, ReLU and pooling of channels first .. first + kPanel of an image, from z [pixels, kPanel].
template <Pool P>
void finish(const ConvBlockBf16Call& call, int64_t first, const float* z, uint16_t* y) {
  const int64_t height = call.conv_height(), width = call.conv_width(), pixels = height * width;
  for (int64_t start = 0; start < kPanel && first + start < call.outputs; start += kLanes) {
    const int64_t channel = first + start;
    const __mmask16 mask = lanes(call.outputs - channel);
    const float* from = z + start;
    // Relative to the first pixel, so that no large mean is squared; a variance is lost to cancellation by 1 / pixels at most.
    const __m512 origin = _mm512_loadu_ps(from);
    __m512 sums[4], squares[4];
    for (int k = 0; k < 4; ++k) sums[k] = squares[k] = _mm512_setzero_ps();
    const auto add = [&](int64_t p, int k) {
      const __m512 apart = _mm512_sub_ps(_mm512_loadu_ps(from + p * kPanel), origin);
      sums[k] = _mm512_add_ps(sums[k], apart);
      squares[k] = _mm512_fmadd_ps(apart, apart, squares[k]);
    };
    int64_t p = 0;
    for (; p + 4 <= pixels; p += 4) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) add(p + k, k);
    }
    for (; p < pixels; ++p) add(p, 0);
    const __m512 count = _mm512_set1_ps(static_cast<float>(pixels));
    const __m512 mean = _mm512_div_ps((sums[0] + sums[1]) + (sums[2] + sums[3]), count);
    __m512 variance = _mm512_div_ps((squares[0] + squares[1]) + (squares[2] + squares[3]), count) - mean * mean;
    variance = positive(variance) + static_cast<float>(call.eps);
    for (int64_t lane = 0; lane < kLanes; ++lane) variance[lane] = std::sqrt(variance[lane]);
    __m512 scale = _mm512_div_ps(_mm512_maskz_loadu_ps(mask, call.weight + channel), variance);
    __m512 shift = _mm512_maskz_loadu_ps(mask, call.bias + channel) - scale * (origin + mean);
    if (P == Pool::avg) {
      scale *= 0.25f;
      shift *= 0.25f;
    }
    const auto active = [&](int64_t pixel) {
      return positive(_mm512_fmadd_ps(_mm512_loadu_ps(from + pixel * kPanel), scale, shift));
    };
    uint16_t* to = y + channel;
    if constexpr (P == Pool::none) {
      for (p = 0; p < pixels; ++p) _mm256_mask_storeu_epi16(to + p * call.outputs, mask, rounded(active(p)));
    } else {
      for (int64_t i = 0; i < height / 2; ++i) {
        for (int64_t j = 0; j < width / 2; ++j, to += call.outputs) {
          const int64_t at = 2 * i * width + 2 * j;
          const __m512 a = active(at), b = active(at + 1), c = active(at + width), d = active(at + width + 1);
          __m512 pooled = (a + b) + (c + d);
          if constexpr (P == Pool::max) {
            const Vec above = b > a ? b : a, below = d > c ? d : c;
            pooled = below > above ? below : above;
          }
          _mm256_mask_storeu_epi16(to, mask, rounded(pooled));
        }
      }
    }
  }
}

void finish(const ConvBlockBf16Call& call, int64_t first, const float* z, uint16_t* y) {
  switch (call.pool) {
    case Pool::avg: return finish<Pool::avg>(call, first, z, y);
    case Pool::max: return finish<Pool::max>(call, first, z, y);
    default: finish<Pool::none>(call, first, z, y);
  }
}

// Of a direct convolution: a row of a filter is 3 inputs numbers, one after the other as in an image, and a zero where they are odd.
inline int64_t row_pairs(int64_t inputs) { return (3 * inputs + 1) / 2; }

struct Direct {
  int64_t row, rows, pixels;  // of the padded image, in numbers; of the output

  explicit Direct(const ConvBlockBf16Call& call)
      : row((call.width + 2 * call.padding) * call.inputs), rows(call.height + 2 * call.padding),
        pixels(call.conv_height() * call.conv_width()) {}

  // One number more, which the last pair may read.
  int64_t image() const { return padded(rows * row / 2 + 1); }
};

void direct(const ConvBlockBf16Call& call, int64_t begin, int64_t end, float* scratch) {
  const Direct sizes(call);
  const int64_t inputs = call.inputs, pairs = 3 * row_pairs(inputs);
  uint16_t* image = reinterpret_cast<uint16_t*>(scratch);
  float* z = scratch + sizes.image();
  int32_t* at = reinterpret_cast<int32_t*>(z + padded(sizes.pixels * kPanel));
  for (int64_t k = 0; k < pairs; ++k) {
    at[k] = static_cast<int32_t>(k / row_pairs(inputs) * sizes.row + 2 * (k % row_pairs(inputs)));
  }
  std::memset(image, 0, sizes.image() * sizeof(float));
  for (int64_t n = begin; n < end; ++n) {
    for (int64_t i = 0; i < call.height; ++i) {
      std::memcpy(image + (i + call.padding) * sizes.row + call.padding * inputs,
                  call.x + (n * call.height + i) * call.width * inputs, call.width * inputs * sizeof(uint16_t));
    }
    for (int64_t panel = 0; panel < panels(call.outputs); ++panel) {
      const uint16_t* filters = call.filters + panel * pairs * kPairPanel;
      for (int64_t i = 0; i < call.conv_height(); ++i) {
        pair_product_of(call.conv_width(), image + i * sizes.row, inputs, at, pairs, filters,
                        z + i * call.conv_width() * kPanel);
      }
      finish(call, panel * kPanel, z, call.y + n * call.out_pixels() * call.outputs);
    }
  }
}

struct Tiles {
  int64_t pixels, depth, rows_of_image, columns, tiles;  // depth: inputs padded to vectors; columns: tiles of a row
  int64_t group, strip;  // images, and rows of tiles of each, that share a pass over the filters: several images, or a part of one
  int64_t rows, step;    // of a product, at most; numbers from one frequency to the next

  explicit Tiles(const ConvBlockBf16Call& call)
      : pixels(call.height * call.width), depth((call.inputs + kLanes - 1) / kLanes * kLanes),
        rows_of_image((call.height + 1) / 2), columns((call.width + 1) / 2), tiles(rows_of_image * columns),
        group(tiles >= kGroupRows ? 1 : kGroupRows / tiles),
        strip(tiles <= kGroupRows ? rows_of_image : (columns >= kGroupRows ? 1 : kGroupRows / columns)),
        rows(group * strip * columns),
        // Not a power of two apart, which would put all 16 into the same cache set.
        step(rows * depth + 32) {}
};

// B^T d B of the 4x4 patches around tiles (i, 0 .. columns), 16 channels from `channel` on: to [16, tile, depth]. What two
// neighbours share, columns of d that are transformed downwards, is made once.
inline void transform_row(const ConvBlockBf16Call& call, const Tiles& sizes, const uint16_t* x, int64_t i, int64_t channel,
                          uint16_t* to) {
  const __mmask16 mask = lanes(call.inputs - channel);
  const uint16_t* rows[4];
  __mmask16 inside[4];
  for (int r = 0; r < 4; ++r) {
    const int64_t h = 2 * i - 1 + r;
    inside[r] = h >= 0 && h < call.height ? mask : 0;
    rows[r] = x + (inside[r] ? h * call.width * call.inputs + channel : 0);
  }
  __m512 t[4][4];  // [frequency downwards, column]
  const auto column = [&](int64_t w, int s) {
    if (w < 0 || w >= call.width) {
      for (int r = 0; r < 4; ++r) t[r][s] = _mm512_setzero_ps();
      return;
    }
    __m512 d[4];
    for (int r = 0; r < 4; ++r) d[r] = widen(inside[r], rows[r] + w * call.inputs);
    t[0][s] = d[0] - d[2];
    t[1][s] = d[1] + d[2];
    t[2][s] = d[2] - d[1];
    t[3][s] = d[1] - d[3];
  };
  column(-1, 0);
  column(0, 1);
  for (int64_t j = 0; j < sizes.columns; ++j, to += sizes.depth) {
    column(2 * j + 1, 2);
    column(2 * j + 2, 3);
    const auto store_at = [&](int f, __m512 v) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + f * sizes.step), rounded(v));
    };
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      store_at(4 * r, t[r][0] - t[r][2]);
      store_at(4 * r + 1, t[r][1] + t[r][2]);
      store_at(4 * r + 2, t[r][2] - t[r][1]);
      store_at(4 * r + 3, t[r][1] - t[r][3]);
      t[r][0] = t[r][2];
      t[r][1] = t[r][3];
    }
  }
}

// A^T m A of the 4x4 sums of tiles (i, 0 .. columns), [16, tile, kPanel], to pixels of z [pixels, kPanel].
inline void untransform_row(const ConvBlockBf16Call& call, const Tiles& sizes, const float* from, int64_t step, int64_t i,
                            float* z) {
  alignas(64) float outside[kPanel];
  for (int64_t j = 0; j < sizes.columns; ++j, from += kPanel) {
    float* to[4];
    for (int k = 0; k < 4; ++k) {
      const int64_t h = 2 * i + k / 2, w = 2 * j + k % 2;
      to[k] = h < call.height && w < call.width ? z + (h * call.width + w) * kPanel : outside;
    }
#pragma GCC unroll 2
    for (int64_t c = 0; c < kPanel; c += kLanes) {
      __m512 above[4], below[4];
#pragma GCC unroll 4
      for (int s = 0; s < 4; ++s) {
        const __m512 m0 = _mm512_loadu_ps(from + s * step + c), m1 = _mm512_loadu_ps(from + (4 + s) * step + c);
        const __m512 m2 = _mm512_loadu_ps(from + (8 + s) * step + c), m3 = _mm512_loadu_ps(from + (12 + s) * step + c);
        above[s] = m0 + m1 + m2;
        below[s] = m1 - m2 - m3;
      }
      _mm512_storeu_ps(to[0] + c, above[0] + above[1] + above[2]);
      _mm512_storeu_ps(to[1] + c, above[1] - above[2] - above[3]);
      _mm512_storeu_ps(to[2] + c, below[0] + below[1] + below[2]);
      _mm512_storeu_ps(to[3] + c, below[1] - below[2] - below[3]);
    }
  }
}

void winograd(const ConvBlockBf16Call& call, int64_t begin, int64_t end, float* scratch) {
  const Tiles sizes(call);
  const int64_t pairs = sizes.depth / 2, count = panels(call.outputs), step = sizes.rows * kPanel + 16, image = sizes.pixels * kPanel;
  uint16_t* transformed = reinterpret_cast<uint16_t*>(scratch);  // [16, rows, depth]
  float* sums = scratch + padded(16 * sizes.step / 2);           // [16, rows, kPanel]
  float* z = sums + 16 * step;                                   // [image, panel, pixels, kPanel]
  for (int64_t n = begin; n < end; n += sizes.group) {
    const int64_t images = end - n < sizes.group ? end - n : sizes.group;
    for (int64_t first = 0; first < sizes.rows_of_image; first += sizes.strip) {
      const int64_t last = first + sizes.strip < sizes.rows_of_image ? first + sizes.strip : sizes.rows_of_image;
      const int64_t tiles = (last - first) * sizes.columns;
      for (int64_t k = 0; k < images; ++k) {
        const uint16_t* x = call.x + (n + k) * sizes.pixels * call.inputs;
        for (int64_t i = first; i < last; ++i) {
          uint16_t* to = transformed + (k * tiles + (i - first) * sizes.columns) * sizes.depth;
          for (int64_t c = 0; c < sizes.depth; c += kLanes) transform_row(call, sizes, x, i, c, to + c);
        }
      }
      for (int64_t panel = 0; panel < count; ++panel) {
        for (int f = 0; f < 16; ++f) {
          const uint16_t* filters = call.filters + (panel * kFrequencies + place_of(f)) * pairs * kPairPanel;
          const uint16_t* from = transformed + f * sizes.step;
          if (f == kExact) {
            pair_product_of(images * tiles, from, sizes.depth, Twice{pairs}, 2 * pairs, filters, sums + f * step);
          } else {
            pair_product_of(images * tiles, from, sizes.depth, Every{2}, pairs, filters, sums + f * step);
          }
        }
        for (int64_t k = 0; k < images; ++k) {
          for (int64_t i = first; i < last; ++i) {
            untransform_row(call, sizes, sums + (k * tiles + (i - first) * sizes.columns) * kPanel, step, i,
                            z + (k * count + panel) * image);
          }
          if (last == sizes.rows_of_image) {
            finish(call, panel * kPanel, z + (k * count + panel) * image, call.y + (n + k) * call.out_pixels() * call.outputs);
          }
        }
      }
    }
  }
}

// G g G^T of 16 filters' 3x3 taps.
inline void transform_filters(const float (&taps)[9][kLanes], __m512 (&u)[16]) {
  const __m512 half = _mm512_set1_ps(0.5f);
  __m512 t[4][3];
  for (int s = 0; s < 3; ++s) {
    const __m512 g0 = _mm512_loadu_ps(taps[s]), g1 = _mm512_loadu_ps(taps[3 + s]), g2 = _mm512_loadu_ps(taps[6 + s]);
    t[0][s] = g0;
    t[1][s] = half * (g0 + g1 + g2);
    t[2][s] = half * (g0 - g1 + g2);
    t[3][s] = g2;
  }
  for (int r = 0; r < 4; ++r) {
    u[4 * r] = t[r][0];
    u[4 * r + 1] = half * (t[r][0] + t[r][1] + t[r][2]);
    u[4 * r + 2] = half * (t[r][0] - t[r][1] + t[r][2]);
    u[4 * r + 3] = t[r][2];
  }
}

// Channel c of filters first .. first + 16, those that there are.
inline void gather(const float* filters, int64_t outputs, int64_t inputs, int64_t first, int64_t c, float (&taps)[9][kLanes]) {
  std::memset(taps, 0, sizeof taps);
  for (int64_t lane = 0; lane < kLanes && first + lane < outputs; ++lane) {
    const float* g = filters + ((first + lane) * inputs + c) * 9;
    for (int tap = 0; tap < 9; ++tap) taps[tap][lane] = g[tap];
  }
}

// Rounds the numbers of 16 columns to one of a pair, every other place from `to` on; returns what they lose.
inline __m512 interleave(__m512 v, uint16_t* to) {
  alignas(32) uint16_t bits[kLanes];
  const __m256i kept = rounded(v);
  _mm256_store_si256(reinterpret_cast<__m256i*>(bits), kept);
  for (int64_t lane = 0; lane < kLanes; ++lane) to[2 * lane] = bits[lane];
  return v - widen(0xffff, bits);
}

void pack_winograd(const float* filters, int64_t outputs, int64_t inputs, int64_t column, uint16_t* packed) {
  const int64_t pairs = (inputs + kLanes - 1) / kLanes * kLanes / 2, place = 2 * (column % kPanel);
  alignas(64) float taps[9][kLanes];
  for (int64_t c = 0; c < inputs; ++c) {
    gather(filters, outputs, inputs, column, c, taps);
    __m512 u[16];
    transform_filters(taps, u);
    for (int f = 0; f < 16; ++f) {
      uint16_t* to = packed + ((column / kPanel * kFrequencies + place_of(f)) * pairs + c / 2) * kPairPanel + place + c % 2;
      const __m512 lost = interleave(u[f], to);
      if (f == kExact) interleave(lost, to + pairs * kPairPanel);
    }
  }
}

// What rounding takes from a tap, the next one gets: the sum of a filter is kept, and with it what smooth images make of it.
void pack_direct(const float* filters, int64_t outputs, int64_t inputs, int64_t column, uint16_t* packed) {
  const int64_t place = 2 * (column % kPanel);
  alignas(64) float taps[9][kLanes];
  __m512 lost = _mm512_setzero_ps();
  for (int tap = 0; tap < 9; ++tap) {
    for (int64_t c = 0; c < inputs; ++c) {
      gather(filters, outputs, inputs, column, c, taps);
      const int64_t number = tap % 3 * inputs + c;
      lost = interleave(_mm512_loadu_ps(taps[tap]) + lost,
                        packed + ((column / kPanel * 3 + tap / 3) * row_pairs(inputs) + number / 2) * kPairPanel + place + number % 2);
    }
  }
}

}  // namespace

namespace avx512bf16 {

int64_t packed_bf16_size(int64_t outputs, int64_t inputs) {
  const int64_t depth = (inputs + kLanes - 1) / kLanes * kLanes;
  return panels(outputs) * (takes_winograd(inputs) ? kFrequencies * depth / 2 : 3 * row_pairs(inputs)) * kPairPanel;
}

// Winograd: G g G^T as [panel, frequency, pair of inputs, column, 2]; direct: [panel, row, pair, column, 2].
void pack_filters_bf16(const float* filters, int64_t outputs, int64_t inputs, int64_t begin, int64_t end, uint16_t* packed) {
  for (int64_t column = begin * kLanes; column < end * kLanes; column += kLanes) {
    (takes_winograd(inputs) ? pack_winograd : pack_direct)(filters, outputs, inputs, column, packed);
  }
}

int64_t packed_bf16_columns(int64_t outputs) { return panels(outputs) * kPanel / kLanes; }

int64_t conv_block_bf16_scratch(const ConvBlockBf16Call& call) {
  if (!takes_winograd(call.inputs)) {
    const Direct sizes(call);
    return sizes.image() + padded(sizes.pixels * kPanel) + padded(3 * row_pairs(call.inputs));
  }
  const Tiles sizes(call);
  return padded(16 * sizes.step / 2) + 16 * (sizes.rows * kPanel + 16) +
         sizes.group * panels(call.outputs) * sizes.pixels * kPanel;
}

void conv_block_bf16_images(const ConvBlockBf16Call& call, int64_t begin, int64_t end, float* scratch) {
  if (takes_winograd(call.inputs)) {
    winograd(call, begin, end, scratch);
  } else {
    direct(call, begin, end, scratch);
  }
}

}  // namespace avx512bf16
}  // namespace fastdd
