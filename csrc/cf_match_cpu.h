// CPU kernels of cf_means, cf_pull and cf_frequencies, free of torch.
//
// A class's rows are packed into blocks of R = cf_block_rows(), column-major: element (row r, column k) of a block is at
// [k * R + r]; rows past the last are zero and have share zero. Frequencies are worked off in panels of P = cf_panel(f64).
#pragma once

#include <cstdint>

#include "segment_mean_cpu.h"
#include "simd.h"

namespace fastdd {

// T is float, or double for f64.
struct CfCall {
  const void* packed;       // T [blocks, d, R], the rows of one class
  int64_t count;            // of them
  const double* shares;     // [blocks * R] of the segment's total weight
  const int64_t* segments;  // [blocks * R], from 0 for the first of the class; non-decreasing
  int64_t num_segments;     // of the class
  const int64_t* outputs;   // [num_segments], their rows of means
  const void* t;            // T [frequencies, d]
  int64_t frequencies, d;
  bool f64;
  void* means;              // T [S, frequencies, 2]: written by cf_means_panel, the gradient that cf_pull_part reads
};

struct CfPack {
  const void* x;            // [N, d]
  Dtype dtype;              // f32, f64, bf16
  const int64_t* rows;      // [count], of x
  int64_t count, d;
  void* packed;
};

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(int64_t cf_block_rows())
FASTDD_DECLARE_VARIANTS(int64_t cf_panel(bool f64))
FASTDD_DECLARE_VARIANTS(void cf_pack(const CfPack& call, int64_t block))
// Bytes of scratch, aligned to 64, of a panel's means, or of a part's pull of up to so many blocks.
FASTDD_DECLARE_VARIANTS(int64_t cf_means_scratch(const CfCall& call))
FASTDD_DECLARE_VARIANTS(void cf_means_panel(const CfCall& call, int64_t panel, char* scratch))
FASTDD_DECLARE_VARIANTS(int64_t cf_pull_scratch(const CfCall& call, int64_t blocks))
// Adds the pull of panels first .. last on blocks begin .. end to sums, T [(end - begin) * R, cf_padded(d)].
FASTDD_DECLARE_VARIANTS(int64_t cf_padded(bool f64, int64_t d))
FASTDD_DECLARE_VARIANTS(void cf_pull_part(const CfCall& call, int64_t begin, int64_t end, int64_t first, int64_t last, void* sums,
                                          char* scratch))
// Draws 2 * first .. 2 * last of a stream, which begins at `start`, into out, which ends after `count`.
FASTDD_DECLARE_VARIANTS(void cf_normals(uint64_t start, int64_t first, int64_t last, int64_t count, float* out))
