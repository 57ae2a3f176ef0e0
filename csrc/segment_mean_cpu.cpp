// Compiled once per instruction set (FASTDD_VARIANT). Everything but the entry points has internal linkage and no standard
// library template is used: the linker keeps one copy of an inline function, and it could be one with AVX-512 in it.
#include "segment_mean_cpu.h"

#include "load.h"

namespace fastdd {
namespace {

constexpr int64_t kColumns = 256;
// Rows summed in the accumulation type before they are added to double: bounds rounding whatever a segment's length.
constexpr int64_t kRun = 32;

template <class In, class Acc>
void add_rows(const In* x, const Acc* w, int64_t begin, int64_t end, int64_t columns, int64_t width, double* sums) {
  Acc run[kColumns];
  for (int64_t c = 0; c < width; ++c) sums[c] = 0;
  for (int64_t start = begin; start < end; start += kRun) {
    const int64_t stop = start + kRun < end ? start + kRun : end;
    for (int64_t c = 0; c < width; ++c) run[c] = 0;
    for (int64_t i = start; i < stop; ++i) {
      const In* row = x + i * columns;
      if (w == nullptr) {
        for (int64_t c = 0; c < width; ++c) run[c] += load(row + c);
      } else {
        const Acc weight = w[i];
        for (int64_t c = 0; c < width; ++c) run[c] += weight * load(row + c);
      }
    }
    for (int64_t c = 0; c < width; ++c) sums[c] += run[c];
  }
}

template <class In, class Acc>
void mean(const MeanCall& call, const Item& item) {
  const In* x = static_cast<const In*>(call.x);
  const Acc* w = static_cast<const Acc*>(call.weights);
  const double total = call.totals[item.segment];
  Acc* out = static_cast<Acc*>(call.out) + item.segment * call.columns;
  double sums[kColumns];
  for (int64_t c = 0; c < call.columns; c += kColumns) {
    const int64_t width = call.columns - c < kColumns ? call.columns - c : kColumns;
    double* into = item.sums != nullptr ? item.sums + c : sums;
    add_rows(x + c, w, item.begin, item.end, call.columns, width, into);
    if (item.sums == nullptr) {
      for (int64_t k = 0; k < width; ++k) out[c + k] = total == 0 ? Acc(0) : static_cast<Acc>(sums[k] / total);
    }
  }
}

template <class T>
void spread(const SpreadCall& call, int64_t begin, int64_t end) {
  // The segment of row `begin`: the last whose offset is <= begin, past empty ones.
  int64_t low = 0, high = call.segments;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (call.offsets[middle] <= begin ? low : high) = middle;
  }
  const T* w = static_cast<const T*>(call.weights);
  for (int64_t i = begin, s = low; i < end; ++i) {
    while (call.offsets[s + 1] <= i) ++s;
    const double total = call.totals[s];
    const T scale = total == 0 ? T(0) : static_cast<T>((w == nullptr ? 1.0 : static_cast<double>(w[i])) / total);
    const T* g = static_cast<const T*>(call.g) + s * call.columns;
    T* out = static_cast<T*>(call.out) + i * call.columns;
    for (int64_t c = 0; c < call.columns; ++c) out[c] = scale * g[c];
  }
}

}  // namespace

namespace FASTDD_VARIANT {

void mean_items(const MeanCall& call, const Item* items, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    switch (call.dtype) {
      case Dtype::f64: mean<double, double>(call, items[i]); break;
      case Dtype::bf16: mean<bf16, float>(call, items[i]); break;
      default: mean<float, float>(call, items[i]);
    }
  }
}

void spread_rows(const SpreadCall& call, int64_t begin, int64_t end) {
  if (call.f64) {
    spread<double>(call, begin, end);
  } else {
    spread<float>(call, begin, end);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
