// Weighted means of rows per segment, for the ops that begin with them.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

namespace fastdd {

// Offsets and weights, checked and contiguous, and the total weight of every segment.
struct Segments {
  torch::stable::Tensor offsets_tensor, weights_tensor;  // keep the memory below alive
  const int64_t* offsets;
  int64_t count;
  const void* weights = nullptr;
  std::vector<double> totals;

  Segments(const torch::stable::Tensor& o, const std::optional<torch::stable::Tensor>& w, int64_t rows, bool f64);
};

// Weighted means of the segments' rows, [N, D] -> [S, D]; float64 for float64 and float32 for anything narrower.
torch::stable::Tensor weighted_means(const torch::stable::Tensor& rows, const Segments& segments);

}  // namespace fastdd
