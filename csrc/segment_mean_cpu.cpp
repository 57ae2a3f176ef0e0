// Compiled once per instruction set (FASTDD_VARIANT). Everything but the entry points has internal linkage and no standard
// library template is used: the linker keeps one copy of an inline function, and it could be one with AVX-512 in it.
#include "segment_mean_cpu.h"

#include "lanes.h"

namespace fastdd {
namespace {

// Rows summed in the accumulation type before they are added to double: bounds rounding whatever a segment's length.
constexpr int64_t kRun = 32;
// Rows that are read side by side, so that a sum is loaded and stored once for all of them.
constexpr int64_t kRowsAtOnce = 8;
constexpr int64_t kLine = 64;  // bytes of a cache line

// run[c] (+)= w_i x_i[c] for R rows, one after the other. Rows two steps ahead are fetched meanwhile, to the second-level cache, as
// rows that lie a power of two apart share a set of the first; the processor itself stops fetching at the end of every page.
template <int64_t R, bool First, bool Weighted, class In, class Acc>
inline void add_rows(const In* x, const Acc* w, int64_t columns, int64_t width, Acc* run) {
  constexpr int64_t kStep = kLine / static_cast<int64_t>(sizeof(In));
  const auto add = [&](int64_t c, auto part) {
    auto sum = First ? typename Lanes<Acc>::Vector{} : Lanes<Acc>::load(run + c);
    for (int64_t i = 0; i < R; ++i) {
      const auto v = part.load(x + i * columns + c);
      sum += Weighted ? w[i] * v : v;
    }
    Lanes<Acc>::store(run + c, sum);  // beyond the last column there is room
  };
  int64_t c = 0;
  for (; c + kStep <= width; c += kStep) {
    for (int64_t i = 2 * R; i < 3 * R; ++i) __builtin_prefetch(x + i * columns + c, 0, 2);
    for (int64_t k = c; k < c + kStep; k += Lanes<In>::kCount) add(k, Whole{});
  }
  for_lanes<In>(width - c, [&](int64_t k, auto part) { add(c + k, part); });
}

template <bool Weighted, class In, class Acc>
void add_run(const In* x, const Acc* w, int64_t rows, int64_t columns, int64_t width, Acc* run) {
  const auto weight = [&](int64_t i) { return Weighted ? w + i : nullptr; };
  int64_t i = 0;
  if (rows >= kRowsAtOnce) {
    add_rows<kRowsAtOnce, true, Weighted>(x, weight(0), columns, width, run);
    i = kRowsAtOnce;
  } else {
    for (int64_t c = 0; c < width + Lanes<Acc>::kCount; ++c) run[c] = 0;
  }
  for (; i + kRowsAtOnce <= rows; i += kRowsAtOnce) {
    add_rows<kRowsAtOnce, false, Weighted>(x + i * columns, weight(i), columns, width, run);
  }
  if (i + 4 <= rows) {
    add_rows<4, false, Weighted>(x + i * columns, weight(i), columns, width, run);
    i += 4;
  }
  for (; i < rows; ++i) add_rows<1, false, Weighted>(x + i * columns, weight(i), columns, width, run);
}

template <class In, class Acc>
void mean(const MeanCall& call, const Item& item, int64_t first, int64_t last) {
  const Acc* w = static_cast<const Acc*>(call.weights);
  const double total = call.totals[item.segment];
  Acc run[kMeanColumns + Lanes<Acc>::kCount];
  double own[kMeanColumns];
  for (int64_t c = first; c < last; c += kMeanColumns) {
    const int64_t width = last - c < kMeanColumns ? last - c : kMeanColumns;
    double* sums = item.sums != nullptr ? item.sums + c : own;
    Acc* out = static_cast<Acc*>(call.out) + item.segment * call.columns + c;
    if (item.begin == item.end) {
      for (int64_t k = 0; k < width; ++k) out[k] = 0;
      continue;
    }
    for (int64_t start = item.begin; start < item.end; start += kRun) {
      const int64_t rows = item.end - start < kRun ? item.end - start : kRun;
      const In* x = static_cast<const In*>(call.x) + start * call.columns + c;
      if (w == nullptr) {
        add_run<false>(x, w, rows, call.columns, width, run);
      } else {
        add_run<true>(x, w + start, rows, call.columns, width, run);
      }
      const bool head = start == item.begin, tail = start + rows == item.end && item.sums == nullptr;
      if (tail && total == 0) {
        for (int64_t k = 0; k < width; ++k) out[k] = 0;
      } else if (tail) {
        for (int64_t k = 0; k < width; ++k) out[k] = static_cast<Acc>(((head ? 0.0 : sums[k]) + run[k]) / total);
      } else if (head) {
        for (int64_t k = 0; k < width; ++k) sums[k] = run[k];
      } else {
        for (int64_t k = 0; k < width; ++k) sums[k] += run[k];
      }
    }
  }
}

template <class T>
void join(const MeanCall& call, const Item* parts, int64_t count, int64_t first, int64_t last) {
  const double total = call.totals[parts->segment];
  T* out = static_cast<T*>(call.out) + parts->segment * call.columns;
  for (int64_t c = first; c < last; ++c) {
    double sum = parts[0].sums[c];
    for (int64_t k = 1; k < count; ++k) sum += parts[k].sums[c];
    out[c] = total == 0 ? T(0) : static_cast<T>(sum / total);
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

void mean_items(const MeanCall& call, const Item* items, int64_t count, int64_t first, int64_t last) {
  for (int64_t i = 0; i < count; ++i) {
    switch (call.dtype) {
      case Dtype::f64: mean<double, double>(call, items[i], first, last); break;
      case Dtype::bf16: mean<bf16, float>(call, items[i], first, last); break;
      default: mean<float, float>(call, items[i], first, last);
    }
  }
}

void mean_join(const MeanCall& call, const Item* parts, int64_t count, int64_t first, int64_t last) {
  if (call.dtype == Dtype::f64) {
    join<double>(call, parts, count, first, last);
  } else {
    join<float>(call, parts, count, first, last);
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
