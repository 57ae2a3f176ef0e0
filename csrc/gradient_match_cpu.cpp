// Compiled once per instruction set (FASTDD_VARIANT), as segment_mean_cpu.cpp is and under the same rules.
#include "gradient_match_cpu.h"

#include "load.h"

namespace fastdd {
namespace {

constexpr int64_t kLanes = 32;
// Elements summed in the accumulation type before they are added to double: bounds rounding whatever a row's length.
constexpr int64_t kRun = 2048;
constexpr int64_t kColumns = 1024;

// Sums of left * right and, if Square, of left * left; of differences, of (left - right)^2.
template <bool Differences, bool Square, class In, class Acc>
inline void products(const In* left, const Acc* right, int64_t columns, double* product, double* square) {
  double total = 0, total_square = 0;
  for (int64_t start = 0; start < columns; start += kRun) {
    const int64_t stop = start + kRun < columns ? start + kRun : columns;
    Acc lane[kLanes] = {}, lane_square[kLanes] = {};
    int64_t i = start;
    for (; i + kLanes <= stop; i += kLanes) {
      for (int64_t k = 0; k < kLanes; ++k) {
        const Acc x = load(left + i + k);
        const Acc y = right[i + k];
        lane[k] += Differences ? (x - y) * (x - y) : x * y;
        if (Square) lane_square[k] += x * x;
      }
    }
    for (int64_t k = 0; i < stop; ++i, ++k) {
      const Acc x = load(left + i);
      const Acc y = right[i];
      lane[k] += Differences ? (x - y) * (x - y) : x * y;
      if (Square) lane_square[k] += x * x;
    }
    for (int64_t k = 0; k < kLanes; ++k) total += lane[k];
    if (Square) {
      for (int64_t k = 0; k < kLanes; ++k) total_square += lane_square[k];
    }
  }
  *product = total;
  if (Square) *square = total_square;
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
  for (const int64_t* s = block.first; s != block.last; ++s) {
    const In* a = static_cast<const In*>(call.a) + *s * call.rows * call.columns;
    Acc* ab = static_cast<Acc*>(call.ab) + *s * call.rows;
    for (int64_t r = block.begin; r < block.end; ++r) {
      double product, square;
      if (call.differences) {
        products<true, false>(a + r * call.columns, b + r * call.columns, call.columns, &product, &square);
      } else {
        products<false, true>(a + r * call.columns, b + r * call.columns, call.columns, &product, &square);
        static_cast<Acc*>(call.aa)[*s * call.rows + r] = static_cast<Acc>(square);
      }
      ab[r] = static_cast<Acc>(product);
    }
  }
  if (call.differences) return;
  for (int64_t r = block.begin; r < block.end; ++r) {
    double square, unused;
    products<false, false>(b + r * call.columns, b + r * call.columns, call.columns, &square, &unused);
    for (const int64_t* s = block.first; s != block.last; ++s) {
      static_cast<Acc*>(call.bb)[*s * call.rows + r] = static_cast<Acc>(square);
    }
  }
}

template <class In, class Acc>
void combine(const RowsCall& call, int64_t item) {
  const Block block(call, item);
  const Acc* p = static_cast<const Acc*>(call.p);
  const Acc* q = static_cast<const Acc*>(call.q);
  Acc sums[kColumns];
  for (int64_t r = block.begin; r < block.end; ++r) {
    double of_b = 0;
    if (!call.differences) {
      for (const int64_t* s = block.first; s != block.last; ++s) of_b += q[*s * call.rows + r];
    }
    const Acc scale = static_cast<Acc>(of_b);
    for (int64_t start = 0; start < call.columns; start += kColumns) {
      const int64_t width = call.columns - start < kColumns ? call.columns - start : kColumns;
      const int64_t at = (block.c * call.rows + r) * call.columns + start;
      const Acc* b = static_cast<const Acc*>(call.b) + at;
      for (int64_t k = 0; k < width; ++k) sums[k] = call.differences ? Acc(0) : scale * b[k];
      for (const int64_t* s = block.first; s != block.last; ++s) {
        const Acc by = p[*s * call.rows + r];
        const In* a = static_cast<const In*>(call.a) + (*s * call.rows + r) * call.columns + start;
        if (call.differences) {
          for (int64_t k = 0; k < width; ++k) sums[k] += by * (b[k] - load(a + k));
        } else {
          for (int64_t k = 0; k < width; ++k) sums[k] += by * load(a + k);
        }
      }
      Acc* out = static_cast<Acc*>(call.out) + at;
      for (int64_t k = 0; k < width; ++k) out[k] = sums[k];
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
