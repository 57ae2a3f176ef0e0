// Compiled once per instruction set (FASTDD_VARIANT), as segment_mean_cpu.cpp is and under the same rules.
#include "gradient_match_cpu.h"

#include <cstring>

#include "load.h"

namespace fastdd {
namespace {

// Elements summed in the accumulation type before they are added to double: bounds rounding whatever a row's length.
constexpr int64_t kRun = 4096;
// Bytes read ahead, over the ends of rows and pages, at which the processor's own prefetching starts anew: 1.2 times as
// fast in float32, 1.4 in bfloat16, from memory.
constexpr int64_t kAhead = 4096;

// GCC's vectors; each variant splits them into what its registers hold.
template <class T, int64_t lanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};

template <class T, int64_t lanes>
using Vector = typename VectorOf<T, lanes>::type;

template <int64_t lanes>
inline Vector<float, lanes> load_vector(const float* p) {
  Vector<float, lanes> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <int64_t lanes>
inline Vector<double, lanes> load_vector(const double* p) {
  Vector<double, lanes> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <int64_t lanes>
inline Vector<float, lanes> load_vector(const bf16* p) {
  Vector<uint16_t, lanes> half;
  std::memcpy(&half, p, sizeof half);
  return reinterpret_cast<Vector<float, lanes>>(__builtin_convertvector(half, Vector<uint32_t, lanes>) << 16);
}

template <int64_t elements, class In>
inline void prefetch(const In* p) {
  const char* ahead = reinterpret_cast<const char*>(p) + kAhead;
  for (size_t line = 0; line < elements * sizeof(In); line += 64) __builtin_prefetch(ahead + line);
}

// Folds a vector in halves, which compiles to shuffles; a loop over its elements would go through memory.
template <class Acc, int64_t lanes>
inline Acc sum_of(const Vector<Acc, lanes>& v) {
  if constexpr (lanes == 1) {
    return v[0];
  } else {
    Vector<Acc, lanes / 2> low, high;
    std::memcpy(&low, &v, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
    return sum_of<Acc, lanes / 2>(low + high);
  }
}

// What a row gives: of differences left - right, the sum of their squares or absolutes; else that of left * right, with squares
// of left or of both.
enum class Of { squares, absolutes, left, both };

template <Of of, class Number>
struct Sums {
  static constexpr bool kSquares = of == Of::left || of == Of::both;
  Number product = {}, left = {}, right = {};

  inline void add(const Number& x, const Number& y) {
    if constexpr (of == Of::absolutes) {
      const Number difference = x - y;
      product += difference < 0 ? -difference : difference;
    } else {
      product += of == Of::squares ? (x - y) * (x - y) : x * y;
    }
    if (kSquares) left += x * x;
    if (of == Of::both) right += y * y;
  }
};

template <Of of, class In, class Acc>
inline Sums<of, double> sums_of(const In* left, const Acc* right, int64_t columns) {
  constexpr int64_t wide = 64 / sizeof(Acc), narrow = 16 / sizeof(Acc);
  using Wide = Vector<Acc, wide>;
  using Narrow = Vector<Acc, narrow>;
  Sums<of, double> out;
  int64_t i = 0;
  while (columns - i >= wide) {
    const int64_t stop = columns - i < kRun ? columns : i + kRun;
    Sums<of, Wide> even, odd;
    for (; i + 2 * wide <= stop; i += 2 * wide) {
      prefetch<2 * wide>(left + i);
      even.add(load_vector<wide>(left + i), load_vector<wide>(right + i));
      odd.add(load_vector<wide>(left + i + wide), load_vector<wide>(right + i + wide));
    }
    if (i + wide <= stop) {
      even.add(load_vector<wide>(left + i), load_vector<wide>(right + i));
      i += wide;
    }
    out.product += sum_of<Acc, wide>(even.product + odd.product);
    if (out.kSquares) out.left += sum_of<Acc, wide>(even.left + odd.left);
    if (of == Of::both) out.right += sum_of<Acc, wide>(even.right + odd.right);
  }
  Sums<of, Narrow> few;
  for (; i + narrow <= columns; i += narrow) few.add(load_vector<narrow>(left + i), load_vector<narrow>(right + i));
  Sums<of, Acc> last;
  for (; i < columns; ++i) last.add(load(left + i), right[i]);
  out.product += sum_of<Acc, narrow>(few.product) + last.product;
  if (out.kSquares) out.left += sum_of<Acc, narrow>(few.left) + last.left;
  if (of == Of::both) out.right += sum_of<Acc, narrow>(few.right) + last.right;
  return out;
}

// The class of a work item, its rows and its segments.
struct Block {
  int64_t c, begin, end;
  const int64_t *first, *last;

  Block(const RowsCall& call, int64_t item) {
    const int64_t blocks = (call.rows + call.block - 1) / call.block;
    c = item / blocks;
    begin = (item - c * blocks) * call.block;
    end = begin + call.block < call.rows ? begin + call.block : call.rows;
    first = call.members + call.starts[c];
    last = call.members + call.starts[c + 1];
  }
};

template <class In, class Acc>
void multiply(const RowsCall& call, int64_t item) {
  const Block block(call, item);
  const Acc* b = static_cast<const Acc*>(call.b) + block.c * call.rows * call.columns;
  Acc* ab = static_cast<Acc*>(call.ab);
  Acc* aa = static_cast<Acc*>(call.aa);
  Acc* bb = static_cast<Acc*>(call.bb);
  for (const int64_t* s = block.first; s != block.last; ++s) {
    const In* a = static_cast<const In*>(call.a) + *s * call.rows * call.columns;
    for (int64_t r = block.begin; r < block.end; ++r) {
      const In* left = a + r * call.columns;
      const Acc* right = b + r * call.columns;
      const int64_t at = *s * call.rows + r;
      if (call.terms == Terms::squares) {
        ab[at] = static_cast<Acc>(sums_of<Of::squares>(left, right, call.columns).product);
      } else if (call.terms == Terms::absolutes) {
        ab[at] = static_cast<Acc>(sums_of<Of::absolutes>(left, right, call.columns).product);
      } else if (s == block.first) {
        const auto sums = sums_of<Of::both>(left, right, call.columns);
        ab[at] = static_cast<Acc>(sums.product);
        aa[at] = static_cast<Acc>(sums.left);
        bb[at] = static_cast<Acc>(sums.right);
      } else {
        const auto sums = sums_of<Of::left>(left, right, call.columns);
        ab[at] = static_cast<Acc>(sums.product);
        aa[at] = static_cast<Acc>(sums.left);
        bb[at] = bb[*block.first * call.rows + r];
      }
    }
  }
}

// What a row's gradient has at an element: a, b - a or its sign, times scale.
template <Terms terms, class Acc>
inline Acc pull_of(Acc scale, Acc a, Acc b) {
  if (terms == Terms::products) return scale * a;
  if (terms == Terms::squares) return scale * (b - a);
  return b > a ? scale : b < a ? -scale : Acc(0);
}

template <Terms terms, class In, class Acc>
inline void add_row(Acc scale, const In* a, const Acc* b, int64_t columns, Acc* __restrict out) {
  constexpr int64_t step = 32;
  int64_t i = 0;
  for (; i + step <= columns; i += step) {
    prefetch<step>(a + i);
    for (int64_t k = i; k < i + step; ++k) out[k] += pull_of<terms, Acc>(scale, load(a + k), b[k]);
  }
  for (; i < columns; ++i) out[i] += pull_of<terms, Acc>(scale, load(a + i), b[i]);
}

// The sum is kept in the output: a block of it stays in a near cache while one segment after the other is added.
template <class In, class Acc>
void combine(const RowsCall& call, int64_t item) {
  const Block block(call, item);
  const Acc* p = static_cast<const Acc*>(call.p);
  const Acc* q = static_cast<const Acc*>(call.q);
  const Acc* b = static_cast<const Acc*>(call.b) + block.c * call.rows * call.columns;
  Acc* out = static_cast<Acc*>(call.out) + block.c * call.rows * call.columns;
  const bool products = call.terms == Terms::products;
  for (int64_t r = block.begin; r < block.end; ++r) {
    double of_b = 0;
    for (const int64_t* s = block.first; products && s != block.last; ++s) of_b += q[*s * call.rows + r];
    const Acc scale = static_cast<Acc>(of_b);
    const Acc* from = b + r * call.columns;
    Acc* __restrict to = out + r * call.columns;
    const bool none = !products || block.first == block.last;
    for (int64_t k = 0; k < call.columns; ++k) to[k] = none ? Acc(0) : scale * from[k];
  }
  for (const int64_t* s = block.first; s != block.last; ++s) {
    const In* a = static_cast<const In*>(call.a) + *s * call.rows * call.columns;
    for (int64_t r = block.begin; r < block.end; ++r) {
      const Acc scale = p[*s * call.rows + r];
      const int64_t at = r * call.columns;
      switch (call.terms) {
        case Terms::products: add_row<Terms::products>(scale, a + at, b + at, call.columns, out + at); break;
        case Terms::squares: add_row<Terms::squares>(scale, a + at, b + at, call.columns, out + at); break;
        case Terms::absolutes: add_row<Terms::absolutes>(scale, a + at, b + at, call.columns, out + at);
      }
    }
  }
}

}  // namespace

namespace FASTDD_VARIANT {

void multiply_rows(const RowsCall& call, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    switch (call.dtype) {
      case Dtype::f64: multiply<double, double>(call, i); break;
      case Dtype::bf16: multiply<bf16, float>(call, i); break;
      default: multiply<float, float>(call, i);
    }
  }
}

void combine_rows(const RowsCall& call, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    switch (call.dtype) {
      case Dtype::f64: combine<double, double>(call, i); break;
      case Dtype::bf16: combine<bf16, float>(call, i); break;
      default: combine<float, float>(call, i);
    }
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
