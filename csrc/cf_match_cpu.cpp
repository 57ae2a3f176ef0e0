// Compiled once per instruction set (FASTDD_VARIANT), as kde_cpu.cpp is and under the same rules.
//
// Phases are in quarter turns: the frequencies are scaled by 2 / pi as they are packed, so that taking off whole quarters is
// exact, whatever the phase.
#include "cf_match_cpu.h"

#include <math.h>

#include "lanes.h"
#include "load.h"

namespace fastdd {
namespace {

// Rows of a tile of phases that the registers hold, by two vectors of frequencies.
#if defined(__AVX512F__)
constexpr int kRows = 12;
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
// Columns that are summed before they are added to the rest, which bounds rounding.
constexpr int64_t kRun = 512;
// Columns of the frequencies that stay in the nearest cache while a pull adds them to rows.
constexpr int64_t kStrip = 256;
constexpr double kQuarter = 1.57079632679489661923;

template <class T>
using Vec = typename Lanes<T>::Vector;
template <class T>
constexpr int64_t kLanes = Lanes<T>::kCount;
template <class T>
constexpr int64_t kPanel = 2 * kLanes<T>;

template <class T>
inline Vec<T> at(const T* p) {
  return Lanes<T>::load(p);
}

template <class T>
inline int64_t padded(int64_t d) {
  return (d + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
}

inline F32 polynomial(F32 z, float a, float b, float c, float d) { return ((d * z + c) * z + b) * z + a; }

// Sine and cosine of quarter turns. Minimax on [-1/2, 1/2]: 3e-9 of the sine, 6e-11 for the cosine, before rounding. Phases from
// 2^22 on, of which float has no quarters left, count as none; NaN stays NaN, and an infinity becomes it.
inline void sine_cosine(F32 v, F32& sine, F32& cosine) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
  v = (v >= 4194304.0f) | (v <= -4194304.0f) ? v * 0.0f : v;
  const F32 rounded = v + kRound;
  const F32 f = v - (rounded - kRound), z = f * f;
  const U32 q = reinterpret_cast<U32>(rounded);
  const F32 s = f * polynomial(z, 1.57079632f, -0.64596346f, 0.07968003f, -0.00460166f);
  const F32 c = 1.0f + z * polynomial(z, -1.23370054f, 0.253669244f, -0.0208602885f, 0.000904021659f);
  const I32 odd = (q & 1u) != 0u;
  const F32 for_sine = odd ? c : s, for_cosine = odd ? s : c;
  sine = reinterpret_cast<F32>(reinterpret_cast<U32>(for_sine) ^ ((q & 2u) << 30));
  cosine = reinterpret_cast<F32>(reinterpret_cast<U32>(for_cosine) ^ (((q + 1u) & 2u) << 30));
}

// float64 is for truth, not for speed.
inline void sine_cosine(F64 v, F64& sine, F64& cosine) {
  for (int64_t l = 0; l < kLanes<double>; ++l) {
    const double angle = kQuarter * (v[l] - 4 * floor(v[l] / 4 + 0.5));
    sine[l] = sin(angle);
    cosine[l] = cos(angle);
  }
}

template <class In, class T>
void pack_rows(const CfPack& call, int64_t block) {
  T* to = static_cast<T*>(call.packed) + block * call.d * kRows;
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t i = block * kRows + r;
    const In* from = i < call.count ? static_cast<const In*>(call.x) + call.rows[i] * call.d : nullptr;
    for (int64_t k = 0; k < call.d; ++k) to[k * kRows + r] = from == nullptr ? T(0) : static_cast<T>(load(from + k));
  }
}

// A panel's frequencies, column-major and in quarter turns; those past the last are zero.
template <class T>
void pack_panel(const CfCall& call, int64_t panel, T* to) {
  constexpr int64_t kPart = 64;
  for (int64_t k = 0; k < call.d; k += kPart) {
    const int64_t stop = k + kPart < call.d ? k + kPart : call.d;
    for (int64_t p = 0; p < kPanel<T>; ++p) {
      const int64_t f = panel * kPanel<T> + p;
      const T* from = static_cast<const T*>(call.t) + f * call.d;
      for (int64_t c = k; c < stop; ++c) {
        to[c * kPanel<T> + p] = f < call.frequencies ? from[c] * static_cast<T>(1 / kQuarter) : T(0);
      }
    }
  }
}

// Phases of a block's rows at a panel's frequencies, [kRows, kPanel].
template <class T>
inline void phases_of(const T* rows, const T* panel, int64_t d, T* phases) {
  for (int64_t i = 0; i < kRows * kPanel<T>; ++i) phases[i] = 0;
  for (int64_t begin = 0; begin < d; begin += kRun) {
    const int64_t end = begin + kRun < d ? begin + kRun : d;
    Vec<T> sums[kRows][2] = {};
    for (int64_t k = begin; k < end; ++k) {
      const Vec<T> t0 = at(panel + k * kPanel<T>), t1 = at(panel + k * kPanel<T> + kLanes<T>);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const Vec<T> value = Vec<T>{} + rows[k * kRows + r];
        sums[r][0] += value * t0;
        sums[r][1] += value * t1;
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      T* to = phases + r * kPanel<T>;
      Lanes<T>::store(to, at(to) + sums[r][0]);
      Lanes<T>::store(to + kLanes<T>, at(to + kLanes<T>) + sums[r][1]);
    }
  }
}

// The two parts of a segment's sums over some rows, added to its totals in double.
template <class T>
inline void add(const Vec<T> (&sums)[2][2], double* totals) {
  for (int part = 0; part < 2; ++part) {
    for (int half = 0; half < 2; ++half) {
      double* to = totals + (part * 2 + half) * kLanes<T>;
      for (int64_t l = 0; l < kLanes<T>; ++l) to[l] += static_cast<double>(sums[part][half][l]);
    }
  }
}

template <class T>
int64_t means_scratch(const CfCall& call) {
  return call.num_segments * 2 * kPanel<T> * sizeof(double) + call.d * kPanel<T> * sizeof(T);
}

template <class T>
void means_panel(const CfCall& call, int64_t panel, char* scratch) {
  constexpr int64_t P = kPanel<T>;
  double* totals = reinterpret_cast<double*>(scratch);
  T* frequencies = reinterpret_cast<T*>(totals + call.num_segments * 2 * P);
  for (int64_t i = 0; i < call.num_segments * 2 * P; ++i) totals[i] = 0;
  pack_panel<T>(call, panel, frequencies);
  alignas(64) T phases[kRows * P];
  for (int64_t first = 0; first < call.count; first += kRows) {
    phases_of<T>(static_cast<const T*>(call.packed) + first * call.d, frequencies, call.d, phases);
    const int64_t rows = call.count - first < kRows ? call.count - first : kRows;
    for (int64_t r = 0; r < rows;) {
      const int64_t segment = call.segments[first + r];
      Vec<T> sums[2][2] = {};
      for (; r < rows && call.segments[first + r] == segment; ++r) {
        const T share = static_cast<T>(call.shares[first + r]);
        for (int half = 0; half < 2; ++half) {
          Vec<T> sine, cosine;
          sine_cosine(at(phases + r * P + half * kLanes<T>), sine, cosine);
          sums[0][half] += share * cosine;
          sums[1][half] += share * sine;
        }
      }
      add<T>(sums, totals + segment * 2 * P);
    }
  }
  const int64_t left = call.frequencies - panel * P, here = left < P ? left : P;
  for (int64_t s = 0; s < call.num_segments; ++s) {
    T* out = static_cast<T*>(call.means) + (call.outputs[s] * call.frequencies + panel * P) * 2;
    for (int64_t p = 0; p < here; ++p) {
      out[2 * p] = static_cast<T>(totals[s * 2 * P + p]);
      out[2 * p + 1] = static_cast<T>(totals[s * 2 * P + P + p]);
    }
  }
}

template <class T>
int64_t pull_scratch(const CfCall& call, int64_t blocks) {
  return (call.d * kPanel<T> + kStrip * kPanel<T> + blocks * kRows * kPanel<T> + call.num_segments * 2 * kPanel<T>) * sizeof(T);
}

// d loss / d phase of a block's rows, [kPanel, kRows].
template <class T>
inline void slopes_of(const CfCall& call, int64_t block, const T* frequencies, const T* gradient, T* slopes) {
  constexpr int64_t P = kPanel<T>;
  alignas(64) T phases[kRows * P];
  phases_of<T>(static_cast<const T*>(call.packed) + block * kRows * call.d, frequencies, call.d, phases);
  for (int64_t r = 0; r < kRows; ++r) {
    const int64_t i = block * kRows + r;
    const T share = i < call.count ? static_cast<T>(call.shares[i]) : T(0);
    const T* g = gradient + (i < call.count ? call.segments[i] : 0) * 2 * P;
    for (int64_t p = 0; p < P; p += kLanes<T>) {
      Vec<T> sine, cosine;
      sine_cosine(at(phases + r * P + p), sine, cosine);
      const Vec<T> slope = share * (cosine * at(g + P + p) - sine * at(g + p));
      for (int64_t l = 0; l < kLanes<T>; ++l) slopes[(p + l) * kRows + r] = slope[l];
    }
  }
}

// sums [kRows, columns] += slopes^T strip, with strip [kPanel, kStrip].
template <class T>
inline void add_strip(const T* slopes, const T* strip, int64_t columns, int64_t stride, T* sums) {
  for (int64_t c = 0; c < columns; c += kPanel<T>) {
    Vec<T> sum[kRows][2];
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      sum[r][0] = at(sums + r * stride + c);
      sum[r][1] = at(sums + r * stride + c + kLanes<T>);
    }
    for (int64_t p = 0; p < kPanel<T>; ++p) {
      const Vec<T> t0 = at(strip + p * kStrip + c), t1 = at(strip + p * kStrip + c + kLanes<T>);
#pragma GCC unroll 12
      for (int r = 0; r < kRows; ++r) {
        const Vec<T> value = Vec<T>{} + slopes[p * kRows + r];
        sum[r][0] += value * t0;
        sum[r][1] += value * t1;
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      Lanes<T>::store(sums + r * stride + c, sum[r][0]);
      Lanes<T>::store(sums + r * stride + c + kLanes<T>, sum[r][1]);
    }
  }
}

template <class T>
void pull_part(const CfCall& call, int64_t begin, int64_t end, int64_t first, int64_t last, T* sums, char* scratch) {
  constexpr int64_t P = kPanel<T>;
  const int64_t stride = padded<T>(call.d);
  T* frequencies = reinterpret_cast<T*>(scratch);
  T* strip = frequencies + call.d * P;
  T* gradient = strip + kStrip * P;
  T* slopes = gradient + call.num_segments * 2 * P;
  for (int64_t panel = first; panel < last; ++panel) {
    pack_panel<T>(call, panel, frequencies);
    for (int64_t s = 0; s < call.num_segments; ++s) {
      const T* from = static_cast<const T*>(call.means) + (call.outputs[s] * call.frequencies + panel * P) * 2;
      for (int64_t p = 0; p < P; ++p) {
        const bool there = panel * P + p < call.frequencies;
        gradient[s * 2 * P + p] = there ? from[2 * p] : T(0);
        gradient[s * 2 * P + P + p] = there ? from[2 * p + 1] : T(0);
      }
    }
    for (int64_t b = begin; b < end; ++b) slopes_of<T>(call, b, frequencies, gradient, slopes + (b - begin) * P * kRows);
    for (int64_t c = 0; c < call.d; c += kStrip) {
      const int64_t columns = call.d - c < kStrip ? call.d - c : kStrip;
      for (int64_t p = 0; p < P; ++p) {
        const int64_t f = panel * P + p;
        const T* from = static_cast<const T*>(call.t) + f * call.d + c;
        for (int64_t k = 0; k < padded<T>(columns); ++k) {
          strip[p * kStrip + k] = f < call.frequencies && k < columns ? from[k] : T(0);
        }
      }
      for (int64_t b = begin; b < end; ++b) {
        const int64_t block = b - begin;
        add_strip<T>(slopes + block * P * kRows, strip, padded<T>(columns), stride, sums + block * kRows * stride + c);
      }
    }
  }
}

inline uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// The natural logarithm of numbers from 2^-33 to 1: 6e-9 before rounding, of the number where it is near 1.
inline F32 logarithm(F32 x) {
  // With sqrt(1/2) as the least mantissa.
  const U32 shifted = reinterpret_cast<U32>(x) - 0x3f3504f3u;
  const F32 exponent = __builtin_convertvector(reinterpret_cast<I32>(shifted) >> 23, F32);
  const F32 f = reinterpret_cast<F32>((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const F32 low = polynomial(f, 0.33333317f, -0.2500081f, 0.20002286f, -0.16624554f);
  const F32 high = polynomial(f, 0.14181191f, -0.13128754f, 0.12881654f, -0.0785962f);
  const F32 z = f * f;
  return exponent * 0.693147181f + (f - 0.5f * z + z * f * (low + z * z * high));
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t cf_block_rows() { return kRows; }
int64_t cf_panel(bool f64) { return f64 ? kPanel<double> : kPanel<float>; }
int64_t cf_padded(bool f64, int64_t d) { return f64 ? padded<double>(d) : padded<float>(d); }

void cf_pack(const CfPack& call, int64_t block) {
  switch (call.dtype) {
    case Dtype::f64: pack_rows<double, double>(call, block); break;
    case Dtype::bf16: pack_rows<bf16, float>(call, block); break;
    default: pack_rows<float, float>(call, block);
  }
}

int64_t cf_means_scratch(const CfCall& call) { return call.f64 ? means_scratch<double>(call) : means_scratch<float>(call); }

void cf_means_panel(const CfCall& call, int64_t panel, char* scratch) {
  call.f64 ? means_panel<double>(call, panel, scratch) : means_panel<float>(call, panel, scratch);
}

int64_t cf_pull_scratch(const CfCall& call, int64_t blocks) {
  return call.f64 ? pull_scratch<double>(call, blocks) : pull_scratch<float>(call, blocks);
}

void cf_pull_part(const CfCall& call, int64_t begin, int64_t end, int64_t first, int64_t last, void* sums, char* scratch) {
  if (call.f64) {
    pull_part<double>(call, begin, end, first, last, static_cast<double*>(sums), scratch);
  } else {
    pull_part<float>(call, begin, end, first, last, static_cast<float*>(sums), scratch);
  }
}

void cf_normals(uint64_t start, int64_t first, int64_t last, int64_t count, float* out) {
  constexpr int64_t W = kLanes<float>;
  for (int64_t i = first; i < last; i += W) {
    // Arrays, not lanes, where vectors of other widths are between: the compiler makes those of them.
    alignas(64) uint32_t high[W], low[W];
    alignas(64) float squared[W], draws[2 * W];
    for (int64_t l = 0; l < W; ++l) {
      const uint64_t bits = mixed(start + static_cast<uint64_t>(i + l) * 0x9E3779B97F4A7C15ull);
      high[l] = static_cast<uint32_t>(bits >> 32);
      low[l] = static_cast<uint32_t>(bits) >> 8;
    }
    U32 radius, angle;
    std::memcpy(&radius, high, sizeof radius);
    std::memcpy(&angle, low, sizeof angle);
    // Box and Muller: the radius from 32 bits, never of 0, and the angle in quarter turns from 24.
    Lanes<float>::store(squared, -2.0f * logarithm((__builtin_convertvector(radius, F32) + 0.5f) * 0x1p-32f));
    for (int64_t l = 0; l < W; ++l) squared[l] = sqrtf(squared[l] > 0 ? squared[l] : 0);
    F32 sine, cosine;
    sine_cosine(__builtin_convertvector(reinterpret_cast<I32>(angle), F32) * 0x1p-22f, sine, cosine);
    alignas(64) float x[W], y[W];
    Lanes<float>::store(x, at(squared) * cosine);
    Lanes<float>::store(y, at(squared) * sine);
    for (int64_t l = 0; l < W; ++l) {
      draws[2 * l] = x[l];
      draws[2 * l + 1] = y[l];
    }
    const int64_t left = (2 * last < count ? 2 * last : count) - 2 * i;
    std::memcpy(out + 2 * i, draws, (left < 2 * W ? left : 2 * W) * sizeof(float));
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
