// How stored images are decoded, checked, for the ops that begin or end with it.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

#include "formation_cpu.h"

namespace fastdd {

// The formation of images [M, C, H, W] into [N, C, out_height, out_width], on their device.
struct Decoding {
  std::optional<torch::stable::Tensor> parts, fill;  // keep the memory below alive
  FormationCall call{};
  int64_t images;  // N

  Decoding(const torch::stable::Tensor& like, int64_t stored, int64_t height, int64_t width, int64_t factor,
           const std::optional<torch::stable::Tensor>& which, const std::optional<torch::stable::Tensor>& padding,
           int64_t out_height, int64_t out_width);

  // Makes what the CPU kernels look up; with `adjoint` what its transpose does too. Refuses addresses that do not exist.
  void look_up(bool adjoint);

 private:
  std::vector<int> places_;
  std::vector<double> doubles_;
  std::vector<float> singles_;
  std::vector<int64_t> lists_;
};

Dtype image_dtype(const torch::stable::Tensor& images);

}  // namespace fastdd
