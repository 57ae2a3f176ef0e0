// Compiled once per instruction set (FASTDD_VARIANT), as segment_mean_cpu.cpp is and under the same rules.
#include "embedding_match_cpu.h"

namespace fastdd {
namespace {

constexpr int64_t kColumns = 256;
constexpr int64_t kLanes = 16;

template <class T>
void difference(const DifferenceCall& call, int64_t s) {
  const T* mean = static_cast<const T*>(call.means) + s * call.columns;
  const T* of_class = static_cast<const T*>(call.synthetic) + call.classes[s] * call.columns;
  T* out = static_cast<T*>(call.differences) + s * call.columns;
  T* distance = static_cast<T*>(call.distances) + s;
  if (call.totals[s] == 0) {
    for (int64_t c = 0; c < call.columns; ++c) out[c] = 0;
    *distance = 0;
    return;
  }
  double lanes[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= call.columns; c += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      const T d = mean[c + k] - of_class[c + k];
      out[c + k] = d;
      lanes[k] += static_cast<double>(d) * static_cast<double>(d);
    }
  }
  for (int64_t k = 0; c < call.columns; ++c, ++k) {
    const T d = mean[c] - of_class[c];
    out[c] = d;
    lanes[k] += static_cast<double>(d) * static_cast<double>(d);
  }
  double sum = 0;
  for (int64_t k = 0; k < kLanes; ++k) sum += lanes[k];
  *distance = static_cast<T>(sum);
}

template <class T>
void pull(const PullCall& call, int64_t c) {
  const T* scale = static_cast<const T*>(call.scale);
  const T* totals = static_cast<const T*>(call.totals);
  T* out = static_cast<T*>(call.out) + c * call.ipc * call.columns;
  const double factor = call.factor / static_cast<double>(call.ipc);
  double sums[kColumns];
  for (int64_t start = 0; start < call.columns; start += kColumns) {
    const int64_t width = call.columns - start < kColumns ? call.columns - start : kColumns;
    for (int64_t k = 0; k < width; ++k) sums[k] = 0;
    for (int64_t i = call.starts[c]; i < call.starts[c + 1]; ++i) {
      const int64_t s = call.members[i];
      if (totals[s] == 0) continue;
      const double by = factor * (scale == nullptr ? 1.0 : static_cast<double>(scale[s]));
      const T* row = static_cast<const T*>(call.x) + s * call.columns + start;
      for (int64_t k = 0; k < width; ++k) sums[k] += by * static_cast<double>(row[k]);
    }
    for (int64_t j = 0; j < call.ipc; ++j) {
      for (int64_t k = 0; k < width; ++k) out[j * call.columns + start + k] = static_cast<T>(sums[k]);
    }
  }
}

}  // namespace

namespace FASTDD_VARIANT {

void difference_rows(const DifferenceCall& call, int64_t begin, int64_t end) {
  for (int64_t s = begin; s < end; ++s) {
    if (call.f64) {
      difference<double>(call, s);
    } else {
      difference<float>(call, s);
    }
  }
}

void pull_classes(const PullCall& call, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    if (call.f64) {
      pull<double>(call, c);
    } else {
      pull<float>(call, c);
    }
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
