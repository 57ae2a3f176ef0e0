// Compiled once per instruction set (FASTDD_VARIANT). Everything but the entry points has internal linkage and no standard
// library template is used: the linker keeps one copy of an inline function, and it could be one with AVX-512 in it.
#include "kde_cpu.h"

#include <math.h>

namespace fastdd {
namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRowsF32 = 8, kRowsF64 = 8;
#elif defined(__AVX2__)
constexpr int kBytes = 32, kRowsF32 = 4, kRowsF64 = 4;
#else
constexpr int kBytes = 16, kRowsF32 = 4, kRowsF64 = 2;
#endif

// Register tile of the product: kRows queries by three vectors of data. kRows divides the panel, so one packing serves both sides.
template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(kBytes)));
  typedef int32_t Bits __attribute__((vector_size(kBytes)));
  typedef double Wide __attribute__((vector_size(2 * kBytes)));
  static constexpr int kRows = kRowsF32, kMantissa = 23;
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, left in the low bits
  static constexpr float kLowest = -126.0f;
  // Minimax for the relative error of 2^f on [-1/2, 1/2] with constant term 1: 3e-9.
  static constexpr float kExp2[] = {0.000155946782f, 0.00134066439f, 0.00961769297f, 0.0555031055f, 0.240226528f, 0.693147215f};
};

template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(kBytes)));
  typedef int64_t Bits __attribute__((vector_size(kBytes)));
  typedef double Wide __attribute__((vector_size(kBytes)));
  static constexpr int kRows = kRowsF64, kMantissa = 52;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLowest = -1022.0;
  // As above: 2e-17.
  static constexpr double kExp2[] = {4.07807192958833667e-10, 7.07257041281442351e-9, 1.01806476592341389e-7, 1.32154426753298221e-6,
                                     1.52527273851938682e-5,  1.54035304415721303e-4, 1.33335581534399647e-3, 9.61812910760700238e-3,
                                     5.55041086647903946e-2,  0.24022650695910098,    0.693147180559945697};
};

template <class T>
using Vector = typename Lanes<T>::Vector;

template <class T>
constexpr int kWidth = kBytes / sizeof(T);
template <class T>
constexpr int kPanel = 3 * kWidth<T>;

constexpr double kInfinity = __builtin_inf();
// Largest finite: stands in for a maximum of -inf, of which nothing could be subtracted.
template <class T>
constexpr T kFloor = sizeof(T) == 4 ? T(-3.4028234663852886e38) : T(-1.7976931348623157e308);

template <class T>
inline Vector<T> load(const T* p) {
  return *reinterpret_cast<const Vector<T>*>(p);
}
template <class T>
inline void store(T* p, Vector<T> v) {
  *reinterpret_cast<Vector<T>*>(p) = v;
}
template <class T>
inline Vector<T> fill(T value) {
  return value - Vector<T>{};
}
// b where either is NaN, so that with a number first a NaN passes.
template <class T>
inline Vector<T> larger(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

// 2^t for t <= 0. What would be subnormal is 2^kLowest, which is nothing beside the largest term, 1.
template <class T>
inline Vector<T> exp2_of(Vector<T> t) {
  using L = Lanes<T>;
  t = larger<T>(fill<T>(L::kLowest), t);
  const Vector<T> rounded = t + L::kRound;
  const Vector<T> f = t - (rounded - L::kRound);
  Vector<T> p = fill<T>(L::kExp2[0]);
  for (unsigned i = 1; i < sizeof(L::kExp2) / sizeof(T); ++i) p = p * f + L::kExp2[i];
  p = p * f + T(1);
  typedef typename L::Bits Bits;
  return reinterpret_cast<Vector<T>>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(rounded) << L::kMantissa));
}

template <class T>
inline T exp2_of_one(T t) {
  return exp2_of<T>(fill<T>(t))[0];
}

template <class T>
inline T largest_of(Vector<T> v) {
  T m = v[0];
  for (int l = 1; l < kWidth<T>; ++l) m = v[l] > m ? v[l] : m;
  return m;
}

template <class T>
inline double sum_of(Vector<T> v) {
  double s = 0;
  for (int l = 0; l < kWidth<T>; ++l) s += static_cast<double>(v[l]);
  return s;
}

template <class T>
void pack(const KdePack& call, int64_t row, int64_t count, int64_t panel, const KdeRows& out) {
  constexpr int W = kPanel<T>;
  const T* x = static_cast<const T*>(call.rows) + row * call.d;
  const T* centre = static_cast<const T*>(call.centre);
  T* packed = static_cast<T*>(out.panels) + panel * call.d * W;
  T* norms = static_cast<T*>(out.norms) + panel * W;
  T* log_weights = static_cast<T*>(out.log_weights) + panel * W;
  constexpr int64_t kBlock = 32;
  for (int64_t k = 0; k < call.d; k += kBlock) {
    const int64_t stop = k + kBlock < call.d ? k + kBlock : call.d;
    for (int64_t r = 0; r < W; ++r) {
      for (int64_t c = k; c < stop; ++c) packed[c * W + r] = r < count ? x[r * call.d + c] - centre[c] : T(0);
    }
  }
  // Summed in the order of the products below: the distance of a row to its copy is then exactly zero.
  Vector<T> sums[3] = {};
  for (int64_t k = 0; k < call.d; ++k) {
    for (int v = 0; v < 3; ++v) {
      const Vector<T> value = load(packed + k * W + v * kWidth<T>);
      sums[v] += value * value;
    }
  }
  for (int v = 0; v < 3; ++v) store(norms + v * kWidth<T>, sums[v]);
  for (int64_t r = 0; r < W; ++r) {
    const double w = r >= count ? 0.0 : call.weights == nullptr ? 1.0 : call.weights[row + r];
    log_weights[r] = static_cast<T>(w > 0 ? log2(w) : -kInfinity);
  }
}

// logs[r][c] = -scale * |q_r - x_c|^2 for kRows queries and one panel of data.
template <class T>
inline void products(const T* q, const T* x, int64_t d, const T* q_norms, const T* x_norms, T scale, T* logs, int64_t stride) {
  constexpr int W = kPanel<T>, R = Lanes<T>::kRows;
  Vector<T> sums[R][3] = {};
  for (int64_t k = 0; k < d; ++k) {
    const Vector<T> x0 = load(x + k * W), x1 = load(x + k * W + kWidth<T>), x2 = load(x + k * W + 2 * kWidth<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T value = q[k * W + r];
      sums[r][0] += value * x0;
      sums[r][1] += value * x1;
      sums[r][2] += value * x2;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < 3; ++v) {
      const Vector<T> squared = (q_norms[r] + load(x_norms + v * kWidth<T>)) - T(2) * sums[r][v];
      store(logs + r * stride + v * kWidth<T>, larger<T>(Vector<T>{}, squared) * -scale);
    }
  }
}

// Panels of data whose rows stay in the second-level cache while all queries of an item pass.
template <class T>
int64_t chunk_panels(int64_t d) {
  const int64_t panels = 262144 / (d * kPanel<T> * static_cast<int64_t>(sizeof(T)) + 1);
  return panels < 1 ? 1 : panels > 16 ? 16 : panels;
}

template <class T>
struct Scratch {
  double* q_sums;   // of 2^(log - q_max)
  double* x_sums;
  T* q_max;
  T* x_max;
  T* logs;          // [kRows, a chunk's rows]

  Scratch(char* memory, int64_t rows) {
    q_sums = reinterpret_cast<double*>(memory);
    x_sums = q_sums + rows;
    q_max = reinterpret_cast<T*>(x_sums + rows);
    x_max = q_max + rows;
    logs = x_max + rows;
  }
};

// Online: the sum so far is taken relative to the maximum so far, and rescaled when that grows.
template <class T>
inline void add_to_query(const T* logs, const T* log_weights, int64_t columns, T& maximum, double& sum) {
  Vector<T> top = fill<T>(maximum);
  for (int64_t c = 0; c < columns; c += kWidth<T>) top = larger<T>(top, load(logs + c) + load(log_weights + c));
  const T found = largest_of<T>(top);
  const T shift = found > kFloor<T> ? found : kFloor<T>;
  Vector<T> sums = {};
  for (int64_t c = 0; c < columns; c += kWidth<T>) sums += exp2_of<T>(load(logs + c) + load(log_weights + c) - shift);
  sum = sum * static_cast<double>(exp2_of_one<T>(maximum - shift)) + sum_of<T>(sums);
  maximum = found;
}

template <class T>
inline void add_to_data(const T* logs, int64_t stride, const T* log_weights, T* maximum, double* sum) {
  constexpr int R = Lanes<T>::kRows;
  typedef typename Lanes<T>::Wide Wide;
  Vector<T> values[R];
  const Vector<T> before = load(maximum);
  Vector<T> top = before;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    values[r] = load(logs + r * stride) + log_weights[r];
    top = larger<T>(top, values[r]);
  }
  const Vector<T> shift = larger<T>(top, fill<T>(kFloor<T>));
  Vector<T> sums = {};
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) sums += exp2_of<T>(values[r] - shift);
  Wide* total = reinterpret_cast<Wide*>(sum);
  *total = *total * __builtin_convertvector(exp2_of<T>(before - shift), Wide) + __builtin_convertvector(sums, Wide);
  store(maximum, top);
}

template <class T>
void finish(const T* maximum, const double* sums, int64_t rows, double* out) {
  for (int64_t i = 0; i < rows; ++i) {
    out[i] = maximum[i] > kFloor<T> ? static_cast<double>(maximum[i]) + log2(sums[i]) : -kInfinity;
  }
}

template <class T>
void item(const KdeCall& call, const KdeItem& work, char* memory) {
  constexpr int W = kPanel<T>, R = Lanes<T>::kRows;
  const int64_t q_panels = work.q_end - work.q_begin, x_panels = work.x_end - work.x_begin, d = call.d;
  const T* q = static_cast<const T*>(call.q.panels) + work.q_begin * d * W;
  const T* q_norms = static_cast<const T*>(call.q.norms) + work.q_begin * W;
  const T* q_weights = static_cast<const T*>(call.q.log_weights) + work.q_begin * W;
  const T* x = static_cast<const T*>(call.x.panels) + work.x_begin * d * W;
  const T* x_norms = static_cast<const T*>(call.x.norms) + work.x_begin * W;
  const T* x_weights = static_cast<const T*>(call.x.log_weights) + work.x_begin * W;
  const T scale = static_cast<T>(call.scale);
  const Scratch<T> scratch(memory, (q_panels > x_panels ? q_panels : x_panels) * W);
  for (int64_t i = 0; i < q_panels * W; ++i) scratch.q_max[i] = static_cast<T>(-kInfinity), scratch.q_sums[i] = 0;
  for (int64_t j = 0; j < x_panels * W; ++j) scratch.x_max[j] = static_cast<T>(-kInfinity), scratch.x_sums[j] = 0;
  const int64_t chunk = chunk_panels<T>(d), stride = chunk * W;
  for (int64_t first = 0; first < x_panels; first += chunk) {
    const int64_t panels = x_panels - first < chunk ? x_panels - first : chunk;
    for (int64_t i = 0; i < q_panels * W; i += R) {
      const T* queries = q + i / W * d * W + i % W;
      for (int64_t p = 0; p < panels; ++p) {
        products<T>(queries, x + (first + p) * d * W, d, q_norms + i, x_norms + (first + p) * W, scale, scratch.logs + p * W, stride);
      }
      if (work.skip_self) {
        for (int64_t r = 0; r < R; ++r) {
          const int64_t self = i + r - first * W;
          if (self >= 0 && self < panels * W) scratch.logs[r * stride + self] = static_cast<T>(-kInfinity);
        }
      }
      for (int64_t r = 0; r < R; ++r) {
        add_to_query<T>(scratch.logs + r * stride, x_weights + first * W, panels * W, scratch.q_max[i + r], scratch.q_sums[i + r]);
      }
      if (work.x_out == nullptr) continue;
      for (int64_t c = 0; c < panels * W; c += kWidth<T>) {
        const int64_t j = first * W + c;
        add_to_data<T>(scratch.logs + c, stride, q_weights + i, scratch.x_max + j, scratch.x_sums + j);
      }
    }
  }
  finish<T>(scratch.q_max, scratch.q_sums, q_panels * W, work.q_out);
  if (work.x_out != nullptr) finish<T>(scratch.x_max, scratch.x_sums, x_panels * W, work.x_out);
}

template <class T>
int64_t scratch_bytes(int64_t d, int64_t panels) {
  const int64_t rows = panels * kPanel<T>;
  return rows * 2 * (sizeof(double) + sizeof(T)) + Lanes<T>::kRows * chunk_panels<T>(d) * kPanel<T> * sizeof(T);
}

}  // namespace

namespace FASTDD_VARIANT {

int64_t kde_panel_rows(bool f64) { return f64 ? kPanel<double> : kPanel<float>; }

void kde_pack(const KdePack& call, int64_t row, int64_t count, int64_t panel, const KdeRows& out) {
  call.f64 ? pack<double>(call, row, count, panel, out) : pack<float>(call, row, count, panel, out);
}

int64_t kde_scratch(const KdeCall& call, int64_t panels) {
  return call.f64 ? scratch_bytes<double>(call.d, panels) : scratch_bytes<float>(call.d, panels);
}

void kde_item(const KdeCall& call, const KdeItem& work, char* scratch) {
  call.f64 ? item<double>(call, work, scratch) : item<float>(call, work, scratch);
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
