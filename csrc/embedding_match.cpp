// fastdd::embedding_match and fastdd::embedding_match_pull for CPU tensors. Shapes and dtypes are checked in
// fastdd/ops/embedding_match.py; what would read or write out of bounds is checked again here.
#include "embedding_match_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "class_lists.h"
#include "segment_mean.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Elements to a task: below that, waking a thread costs more than the arithmetic.
constexpr int64_t kGrain = 32768;

Tensor checked_classes(const Tensor& classes, int64_t segments, int64_t num_classes) {
  STD_TORCH_CHECK(classes.dim() == 1 && classes.size(0) == segments && classes.scalar_type() == ScalarType::Long,
                  "classes must be int64 [S]");
  Tensor out = torch::stable::contiguous(classes);
  const int64_t* of = out.const_data_ptr<int64_t>();
  for (int64_t s = 0; s < segments; ++s) {
    STD_TORCH_CHECK(of[s] >= 0 && of[s] < num_classes, "classes[", s, "] = ", of[s], " is not below ", num_classes);
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor> embedding_match(const Tensor& real, const Tensor& synthetic, const Tensor& offsets,
                                                   const std::optional<Tensor>& weights, const Tensor& classes,
                                                   int64_t num_classes) {
  STD_TORCH_CHECK(real.dim() == 2 && synthetic.dim() == 2 && real.size(1) == synthetic.size(1),
                  "real must be [N, D] and synthetic [C * IPC, D]");
  STD_TORCH_CHECK(num_classes > 0 && synthetic.size(0) % num_classes == 0, "synthetic must have IPC rows a class");
  const bool f64 = real.scalar_type() == ScalarType::Double;
  const ScalarType type = f64 ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(synthetic.scalar_type() == type, "synthetic must be float64 if real is, and float32 otherwise");
  const int64_t columns = real.size(1), ipc = synthetic.size(0) / num_classes;
  const fastdd::Segments segments(offsets, weights, real.size(0), f64);
  const Tensor of = checked_classes(classes, segments.count, num_classes);

  Tensor class_offsets = torch::stable::new_empty(offsets, {num_classes + 1});
  for (int64_t c = 0; c <= num_classes; ++c) class_offsets.mutable_data_ptr<int64_t>()[c] = c * ipc;
  const Tensor synthetic_means = fastdd::weighted_means(
      synthetic, fastdd::Segments(class_offsets, std::nullopt, synthetic.size(0), f64));
  Tensor differences = fastdd::weighted_means(real, segments);
  Tensor distances = torch::stable::new_empty(synthetic, {segments.count});
  Tensor totals = torch::stable::new_empty(synthetic, {segments.count});
  for (int64_t s = 0; s < segments.count; ++s) {
    if (f64) {
      totals.mutable_data_ptr<double>()[s] = segments.totals[s];
    } else {
      totals.mutable_data_ptr<float>()[s] = static_cast<float>(segments.totals[s]);
    }
  }
  const fastdd::DifferenceCall call{differences.const_data_ptr(),     synthetic_means.const_data_ptr(),
                                    of.const_data_ptr<int64_t>(),     segments.totals.data(),
                                    f64,                              distances.mutable_data_ptr(),
                                    differences.mutable_data_ptr(),   columns};
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, columns));
  torch::stable::parallel_for(0, segments.count, grain, [&](int64_t begin, int64_t end) {
    FASTDD_DISPATCH(difference_rows, call, begin, end);
  });
  return {distances, differences, totals};
}

Tensor embedding_match_pull(const std::optional<Tensor>& scale, const Tensor& x, const Tensor& totals, const Tensor& classes,
                      int64_t num_classes, int64_t n, double factor) {
  const ScalarType type = x.scalar_type();
  const bool f64 = type == ScalarType::Double;
  STD_TORCH_CHECK(x.dim() == 2 && (f64 || type == ScalarType::Float), "x must be float32 or float64 [S, D]");
  STD_TORCH_CHECK(num_classes > 0 && n % num_classes == 0, "n must be a multiple of the number of classes");
  const int64_t segments = x.size(0), columns = x.size(1), ipc = n / num_classes;
  const auto of_segments = [&](const Tensor& t) {
    STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == segments && t.scalar_type() == type,
                    "scale and totals must be [S], of x's dtype");
    return torch::stable::contiguous(t);
  };
  const Tensor of = checked_classes(classes, segments, num_classes);
  const fastdd::ClassLists lists(of.const_data_ptr<int64_t>(), segments, num_classes);
  const Tensor rows = torch::stable::contiguous(x), total = of_segments(totals);
  const Tensor by = scale.has_value() ? of_segments(*scale) : total;
  Tensor out = torch::stable::new_empty(x, {n, columns});
  const fastdd::PullCall call{scale.has_value() ? by.const_data_ptr() : nullptr,
                              rows.const_data_ptr(),
                              total.const_data_ptr(),
                              lists.starts.data(),
                              lists.members.data(),
                              f64,
                              out.mutable_data_ptr(),
                              columns,
                              ipc,
                              factor};
  const int64_t each = std::max<int64_t>(1, (n + segments) * columns / num_classes);
  torch::stable::parallel_for(0, num_classes, std::max<int64_t>(1, kGrain / each), [&](int64_t begin, int64_t end) {
    FASTDD_DISPATCH(pull_classes, call, begin, end);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("embedding_match", TORCH_BOX(&embedding_match));
  m.impl("embedding_match_pull", TORCH_BOX(&embedding_match_pull));
}
