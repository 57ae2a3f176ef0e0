// fastdd::segment_mean and fastdd::segment_spread for CPU tensors. Shapes and dtypes are checked in fastdd/ops/segment_mean.py;
// what would read or write out of bounds is checked again here.
#include "segment_mean.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
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

  std::vector<Item> items;
  int64_t split = 0;  // items that share a segment
  for (int64_t s = 0; s < segments.count; ++s) {
    const int64_t begin = segments.offsets[s], end = segments.offsets[s + 1];
    int64_t start = begin;
    do {
      const int64_t stop = std::min(start + kRowsPerItem, end);
      items.push_back({start, stop, nullptr, s});
      start = stop;
    } while (start < end);
    if (end - begin > kRowsPerItem) split += (end - begin + kRowsPerItem - 1) / kRowsPerItem;
  }
  std::vector<double> partials(split * columns);
  double* next = partials.data();
  for (auto& item : items) {
    if (segments.offsets[item.segment + 1] - segments.offsets[item.segment] > kRowsPerItem) {
      item.sums = next;
      next += columns;
    }
  }
  const MeanCall call{x.const_data_ptr(),     dtype, segments.weights, segments.totals.data(),
                      out.mutable_data_ptr(), columns};
  // About 32,000 elements to a task: below that, waking a thread costs more than the sum.
  const int64_t typical = std::max<int64_t>(1, rows * columns / static_cast<int64_t>(items.size()));
  const int64_t grain = std::max<int64_t>(1, 32768 / typical);
  torch::stable::parallel_for(0, static_cast<int64_t>(items.size()), grain, [&](int64_t begin, int64_t end) {
    FASTDD_DISPATCH(mean_items, call, items.data() + begin, end - begin);
  });
  if (split == 0) return out;
  // Partial sums are added in the order of their rows, whatever thread made them.
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].sums == nullptr) continue;
    const int64_t s = items[i].segment;
    double* sums = items[i].sums;
    size_t last = i;
    while (last + 1 < items.size() && items[last + 1].segment == s) ++last;
    for (size_t k = i + 1; k <= last; ++k) {
      for (int64_t c = 0; c < columns; ++c) sums[c] += items[k].sums[c];
    }
    const double total = segments.totals[s];
    for (int64_t c = 0; c < columns; ++c) {
      const double value = total == 0 ? 0.0 : sums[c] / total;
      if (f64) {
        out.mutable_data_ptr<double>()[s * columns + c] = value;
      } else {
        out.mutable_data_ptr<float>()[s * columns + c] = static_cast<float>(value);
      }
    }
    i = last;
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
