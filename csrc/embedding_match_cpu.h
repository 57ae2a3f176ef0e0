// CPU kernels of embedding_match and embedding_match_pull, free of torch.
#pragma once

#include <cstdint>

#include "simd.h"

namespace fastdd {

struct DifferenceCall {
  const void* means;        // [segments, columns] of the real rows
  const void* synthetic;    // [classes, columns] means of the synthetic rows
  const int64_t* classes;   // [segments]
  const double* totals;     // [segments] total weight
  bool f64;
  void* distances;          // [segments]
  void* differences;        // [segments, columns]; may be `means`
  int64_t columns;
};

struct PullCall {
  const void* scale;        // [segments] or null for 1
  const void* x;            // [segments, columns]
  const void* totals;       // [segments]; where it is zero, the segment pulls nothing
  const int64_t* starts;    // [classes + 1] into members
  const int64_t* members;   // segments, class by class
  bool f64;
  void* out;                // [classes * ipc, columns]
  int64_t columns, ipc;
  double factor;
};

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(void difference_rows(const DifferenceCall& call, int64_t begin, int64_t end))
FASTDD_DECLARE_VARIANTS(void pull_classes(const PullCall& call, int64_t begin, int64_t end))
