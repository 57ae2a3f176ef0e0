// fastdd::segment_mean and fastdd::segment_spread for CPU tensors. Shapes and dtypes are checked in fastdd/ops/segment_mean.py;
// what would read or write out of bounds is checked again here.
#include "segment_mean.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "segment_mean_cpu.h"

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

namespace fastdd {

Segments::Segments(const Tensor& o, const std::optional<Tensor>& w, int64_t rows, bool f64)
    : offsets_tensor(o), weights_tensor(o) {
  STD_TORCH_CHECK(o.dim() == 1 && o.size(0) >= 1 && o.scalar_type() == ScalarType::Long, "offsets must be int64 [S+1]");
  offsets_tensor = torch::stable::contiguous(o);
  offsets = offsets_tensor.const_data_ptr<int64_t>();
  count = o.size(0) - 1;
  STD_TORCH_CHECK(offsets[0] == 0 && offsets[count] == rows, "offsets must go from 0 to the number of rows");
  for (int64_t s = 0; s < count; ++s) STD_TORCH_CHECK(offsets[s] <= offsets[s + 1], "offsets must not decrease");
  totals.resize(count);
  if (w.has_value()) {
    STD_TORCH_CHECK(w->dim() == 1 && w->size(0) == rows, "weights must have one entry a row");
    weights_tensor = torch::stable::contiguous(torch::stable::to(*w, f64 ? ScalarType::Double : ScalarType::Float));
    weights = weights_tensor.const_data_ptr();
  }
  torch::stable::parallel_for(0, count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      double total = static_cast<double>(offsets[s + 1] - offsets[s]);
      if (weights != nullptr) {
        total = 0;
        for (int64_t i = offsets[s]; i < offsets[s + 1]; ++i) {
          total += f64 ? static_cast<const double*>(weights)[i] : static_cast<const float*>(weights)[i];
        }
      }
      totals[s] = total;
    }
  });
}

namespace {

// Elements to a task: below that, waking a thread costs more than the sum.
constexpr int64_t kGrain = 32768;
// Columns of a block at least: parts of rows that memory still delivers at full speed.
constexpr int64_t kNarrowest = 256;

// Segments, and parts of those that are longer than kRowsPerItem.
struct Items {
  std::vector<Item> all;
  std::vector<std::pair<int64_t, int64_t>> split;  // first item and number of items of every segment in parts
  std::vector<double> sums;

  Items(const Segments& segments, int64_t columns) {
    all.reserve(segments.count);
    int64_t parts = 0;
    for (int64_t s = 0; s < segments.count; ++s) {
      const int64_t end = segments.offsets[s + 1], first = static_cast<int64_t>(all.size());
      int64_t start = segments.offsets[s];
      do {
        const int64_t stop = std::min(start + kRowsPerItem, end);
        all.push_back({start, stop, nullptr, s});
        start = stop;
      } while (start < end);
      const int64_t count = static_cast<int64_t>(all.size()) - first;
      if (count == 1) continue;
      split.emplace_back(first, count);
      parts += count;
    }
    sums.resize(parts * columns);
    double* next = sums.data();
    for (const auto& [first, count] : split) {
      for (int64_t k = first; k < first + count; ++k, next += columns) all[k].sums = next;
    }
  }

  // The first item that begins at `position` or later, in rows and items before it.
  int64_t at(int64_t position) const {
    int64_t low = 0, high = static_cast<int64_t>(all.size());
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      (all[middle].begin + middle < position ? low : high) = middle + (all[middle].begin + middle < position ? 1 : 0);
    }
    return low;
  }
};

}  // namespace

Tensor weighted_means(const Tensor& input, const Segments& segments) {
  STD_TORCH_CHECK(input.dim() == 2, "x must be [N, D]");
  const int64_t rows = input.size(0), columns = input.size(1);
  Tensor x = torch::stable::contiguous(input);
  Dtype dtype = Dtype::f32;
  switch (x.scalar_type()) {
    case ScalarType::Float: break;
    case ScalarType::Double: dtype = Dtype::f64; break;
    case ScalarType::BFloat16: dtype = Dtype::bf16; break;
    case ScalarType::Half: x = torch::stable::to(x, ScalarType::Float); break;
    default: STD_TORCH_CHECK(false, "x must be float32, float64, bfloat16 or float16");
  }
  const bool f64 = dtype == Dtype::f64;
  Tensor out = torch::stable::new_empty(x, {segments.count, columns}, f64 ? ScalarType::Double : ScalarType::Float);
  if (segments.count == 0 || columns == 0) return out;

  const Items items(segments, columns);
  const MeanCall call{x.const_data_ptr(),     dtype, segments.weights, segments.totals.data(),
                      out.mutable_data_ptr(), columns};
  // A thread's share is a block of columns of some items: no block depends on another, so any number of them gives the same bits.
  const int64_t threads = std::max<int64_t>(1, torch::stable::get_num_threads());
  const int64_t wide = std::max(kNarrowest, (columns + threads - 1) / threads);
  const int64_t width = (wide + kNarrowest - 1) / kNarrowest * kNarrowest, blocks = (columns + width - 1) / width;
  const auto column = [&](int64_t block) { return std::min(block * width, columns); };
  // Items by their rows, and one more each for what a mean costs by itself.
  const int64_t work = rows + static_cast<int64_t>(items.all.size());
  torch::stable::parallel_for(0, blocks * work, std::max<int64_t>(1, kGrain / width), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin / work; block * work < end; ++block) {
      const int64_t first = items.at(begin - block * work), last = items.at(end - block * work);
      FASTDD_DISPATCH(mean_items, call, items.all.data() + first, last - first, column(block), column(block + 1));
    }
  });
  for (const auto& [first, count] : items.split) {
    torch::stable::parallel_for(0, columns, std::max<int64_t>(1, kGrain / count), [&](int64_t begin, int64_t end) {
      FASTDD_DISPATCH(mean_join, call, items.all.data() + first, count, begin, end);
    });
  }
  return out;
}

namespace {

Tensor segment_mean(const Tensor& input, const Tensor& offsets, const std::optional<Tensor>& weights) {
  STD_TORCH_CHECK(input.dim() == 2, "x must be [N, D]");
  return weighted_means(input, Segments(offsets, weights, input.size(0), input.scalar_type() == ScalarType::Double));
}

Tensor segment_spread(const Tensor& gradient, const Tensor& offsets, const std::optional<Tensor>& weights, int64_t rows) {
  STD_TORCH_CHECK(gradient.dim() == 2 && gradient.size(0) == offsets.size(0) - 1, "g must be [S, D]");
  const bool f64 = gradient.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(f64 || gradient.scalar_type() == ScalarType::Float, "g must be float32 or float64");
  const Tensor g = torch::stable::contiguous(gradient);
  const int64_t columns = g.size(1);
  const Segments segments(offsets, weights, rows, f64);
  Tensor out = torch::stable::new_empty(g, {rows, columns});
  if (rows == 0 || columns == 0) return out;
  const SpreadCall call{g.const_data_ptr(),     f64, segments.offsets, segments.count, segments.weights,
                        segments.totals.data(), out.mutable_data_ptr(), columns};
  torch::stable::parallel_for(0, rows, std::max<int64_t>(1, 32768 / columns), [&](int64_t begin, int64_t end) {
    FASTDD_DISPATCH(spread_rows, call, begin, end);
  });
  return out;
}

}  // namespace
}  // namespace fastdd

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("segment_mean", TORCH_BOX(&fastdd::segment_mean));
  m.impl("segment_spread", TORCH_BOX(&fastdd::segment_spread));
}
