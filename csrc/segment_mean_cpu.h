// CPU kernels of segment_mean and segment_spread, free of torch.
#pragma once

#include <cstdint>

#include "simd.h"

namespace fastdd {

enum class Dtype : int { f32, f64, bf16, u8 };

// Rows of one segment that one work item sums; fixed, so results do not depend on the number of threads.
constexpr int64_t kRowsPerItem = 1024;
// Columns whose sums are held at once.
constexpr int64_t kMeanColumns = 2048;

struct Item {
  int64_t begin, end;   // rows
  double* sums;         // [columns] partial sums, or null when the item is its whole segment
  int64_t segment;
};

struct MeanCall {
  const void* x;            // [rows, columns]
  Dtype dtype;              // f32, f64, bf16
  const void* weights;      // [rows] in the accumulation type, or null
  const double* totals;     // [segments] total weight
  void* out;                // [segments, columns] in the accumulation type
  int64_t columns;
};

struct SpreadCall {
  const void* g;            // [segments, columns]
  bool f64;
  const int64_t* offsets;   // [segments + 1]
  int64_t segments;
  const void* weights;      // [rows] or null
  const double* totals;
  void* out;                // [rows, columns]
  int64_t columns;
};

}  // namespace fastdd

// Columns first .. last - 1 of the items: the means of whole segments, the sums of parts of segments.
FASTDD_DECLARE_VARIANTS(void mean_items(const MeanCall& call, const Item* items, int64_t count, int64_t first, int64_t last))
// Columns first .. last - 1 of the mean of one segment, from the sums of its `count` parts, which are added in their order.
FASTDD_DECLARE_VARIANTS(void mean_join(const MeanCall& call, const Item* parts, int64_t count, int64_t first, int64_t last))
FASTDD_DECLARE_VARIANTS(void spread_rows(const SpreadCall& call, int64_t begin, int64_t end))
