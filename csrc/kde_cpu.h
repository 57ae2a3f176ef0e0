// CPU kernels of kde, free of torch.
//
// Rows are centred, transposed and packed into panels of W rows (W = kde_panel_rows), k-major: element (row r, column k) of a panel
// is at [k * W + r]. A segment starts with a panel of its own; rows past its end are zero with weight zero.
#pragma once

#include <cstdint>

#include "simd.h"

namespace fastdd {

struct KdePack {
  const void* rows;         // [n, d]
  const void* centre;       // [d]
  const double* weights;    // [n] or null for 1
  int64_t d;
  bool f64;
};

// Packed rows; T is float, or double when f64.
struct KdeRows {
  void* panels;             // T [panels, d, W]
  void* norms;              // T [panels, W], squared
  void* log_weights;        // T [panels, W], base 2; -inf for padding
};

// A rectangle of pairs. Writes log2 sum_j w_j K(q_i, x_j) a query, and, when x_out is there, the same sums the other way round.
struct KdeItem {
  int64_t q_begin, q_end;   // panels
  int64_t x_begin, x_end;   // panels
  bool skip_self;           // q and x are the same panels, and a row's own term is left out
  double* q_out;            // [(q_end - q_begin) * W]
  double* x_out;            // [(x_end - x_begin) * W] or null
};

struct KdeCall {
  KdeRows q, x;
  int64_t d;
  double scale;             // log2(e) / (2 h^2)
  bool f64;
};

}  // namespace fastdd

FASTDD_DECLARE_VARIANTS(int64_t kde_panel_rows(bool f64))
FASTDD_DECLARE_VARIANTS(void kde_pack(const KdePack& call, int64_t row, int64_t count, int64_t panel, const KdeRows& out))
// Bytes of scratch, aligned to 64, that an item of up to this many panels a side needs.
FASTDD_DECLARE_VARIANTS(int64_t kde_scratch(const KdeCall& call, int64_t panels))
FASTDD_DECLARE_VARIANTS(void kde_item(const KdeCall& call, const KdeItem& item, char* scratch))
