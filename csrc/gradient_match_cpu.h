// CPU kernels of gradient_match_products, _combine, _distances, _pull, _absolutes and _signs, free of torch.
#pragma once

#include <cstdint>

#include "segment_mean_cpu.h"
#include "simd.h"

namespace fastdd {

// A work item's rows are as many as keep their part of b, which every segment of the class meets, in a near cache.
constexpr int64_t kBlockElements = 8192;

// What is summed of a row, and what its gradient has: products (a), squared differences (b - a), or absolute ones (their sign).
enum class Terms { products, squares, absolutes };

struct RowsCall {
  const void* a;           // [segments, rows, columns]
  Dtype dtype;             // of a: f32, f64, bf16; everything else is f64 for f64 and f32 otherwise
  const void* b;           // [classes, rows, columns]
  const int64_t* starts;   // [classes + 1] into members
  const int64_t* members;  // segments, class by class
  int64_t rows, columns, block;
  Terms terms;             // of differences (_distances, _pull; _absolutes, _signs) or of a and b
  // Products: [segments, rows]. Of differences, ab alone, which gets their sum.
  void *ab, *aa, *bb;
  // Combinations: p and q, [segments, rows]; out, [classes, rows, columns]. Of differences, no q.
  const void *p, *q;
  void* out;
};

}  // namespace fastdd

// Work items are blocks of rows of a class, class after class.
FASTDD_DECLARE_VARIANTS(void multiply_rows(const RowsCall& call, int64_t begin, int64_t end))
FASTDD_DECLARE_VARIANTS(void combine_rows(const RowsCall& call, int64_t begin, int64_t end))
