// CPU kernels of formation and formation_adjoint, free of torch.
#pragma once

#include <cstdint>

#include "formation_math.h"
#include "segment_mean_cpu.h"
#include "simd.h"

namespace fastdd {

struct FormationCall {
  Formation f;
  int channels;
  Dtype dtype;
  const void* in;  // [M, C, H, W]; of the adjoint [N, C, H', W']
  void* out;       // the other
  // Where rows and columns of the result sample a part (Tap), weights in the computing type.
  const int *row_low, *row_high, *column_low, *column_high;
  const void *row_weight, *column_weight;
  // Of the adjoint: of every column of a part, the columns of the result that sampled it, first[j] to first[j] + taps - 1,
  // with weights [taps][columns]; and the decoded images of every stored one, members[offsets[m]] to members[offsets[m + 1] - 1].
  const int* first;
  int taps;
  const void* back;
  const int64_t *offsets, *members;
};

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(bool formation_images(const FormationCall& call, int64_t begin, int64_t end))
FASTDD_DECLARE_VARIANTS(bool formation_adjoint_images(const FormationCall& call, int64_t begin, int64_t end))
