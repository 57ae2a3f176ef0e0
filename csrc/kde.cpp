// fastdd::kde for CPU tensors. Shapes and values are checked in fastdd/ops/kde.py; what would read or write out of bounds is
// checked again here.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kde_cpu.h"

namespace {

using fastdd::KdeCall;
using fastdd::KdeItem;
using fastdd::KdeRows;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// A side is cut into at most this many blocks, of at least this many rows. Both bound memory: a row has one partial result a block
// of the other side. By shapes alone, so results do not depend on the number of threads.
constexpr int64_t kBlocks = 32, kBlockRows = 384;
// Segments are packed and worked off together up to this many rows, so that padding many small ones takes no more memory.
constexpr int64_t kGroupRows = 65536;

struct Free {
  void operator()(char* p) const { std::free(p); }
};
using Memory = std::unique_ptr<char, Free>;

Memory allocate(int64_t bytes) {
  constexpr int64_t kAlign = 128;
  char* p = static_cast<char*>(std::aligned_alloc(kAlign, (bytes / kAlign + 1) * kAlign));
  STD_TORCH_CHECK(p != nullptr, "kde: no memory for ", bytes, " bytes");
  return Memory(p);
}

// Packed rows and the memory they lie in.
struct Packed {
  Memory memory;
  KdeRows rows;

  Packed(int64_t panels, int64_t width, int64_t d, bool f64) {
    const int64_t size = f64 ? 8 : 4, norms = panels * width * d * size, weights = norms + panels * width * size;
    memory = allocate(weights + panels * width * size);
    rows = {memory.get(), memory.get() + norms, memory.get() + weights};
  }
};

// Rows [begin, end) of a segment, in panels [panel, panel + panels).
struct Segment {
  int64_t begin, end, panel, panels;
};

void pack(const fastdd::KdePack& call, const Segment& segment, int64_t width, const KdeRows& out) {
  torch::stable::parallel_for(0, segment.panels, 16, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) {
      const int64_t row = segment.begin + p * width;
      FASTDD_DISPATCH(kde_pack, call, row, std::min(width, segment.end - row), segment.panel + p, out);
    }
  });
}

int64_t block_panels(int64_t panels, int64_t width) {
  return std::max((kBlockRows + width - 1) / width, (panels + kBlocks - 1) / kBlocks);
}

// Any thread takes the next item; where an item writes does not depend on who took it.
void run(const KdeCall& call, const std::vector<KdeItem>& items) {
  int64_t panels = 0;
  for (const auto& item : items) panels = std::max({panels, item.q_end - item.q_begin, item.x_end - item.x_begin});
  const int64_t bytes = FASTDD_DISPATCH(kde_scratch, call, panels);
  std::atomic<size_t> next{0};
  const int64_t workers = std::min<int64_t>(torch::stable::get_num_threads(), static_cast<int64_t>(items.size()));
  torch::stable::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    const Memory scratch = allocate(bytes);
    for (size_t i = next++; i < items.size(); i = next++) FASTDD_DISPATCH(kde_item, call, items[i], scratch.get());
  });
}

// log2 of the sum of 2^parts, of which there is one every stride.
double log2_sum(const double* parts, int64_t count, int64_t stride) {
  double top = -kInfinity, sum = 0;
  for (int64_t k = 0; k < count; ++k) top = std::max(top, parts[k * stride]);
  if (top == -kInfinity) return top;
  for (int64_t k = 0; k < count; ++k) sum += std::exp2(parts[k * stride] - top);
  return top + std::log2(sum);
}

// What the density is divided by: the weight of the segment, without the row itself under leave-one-out.
class TotalWeight {
 public:
  TotalWeight(const double* weights, int64_t begin, int64_t end, bool leave_one_out)
      : weights_(weights), leave_one_out_(leave_one_out), total_(static_cast<double>(end - begin)) {
    if (weights == nullptr) return;
    total_ = 0;
    for (int64_t i = begin; i < end; ++i) total_ += weights[i];
    for (int64_t i = begin; i < end; ++i) light_ += weights[i] > total_ / 2 ? 0.0 : weights[i];
  }
  double operator()(int64_t row) const {
    if (!leave_one_out_) return total_;
    if (weights_ == nullptr) return total_ - 1;
    // Where the row has most of the weight, the rest was summed without it: nothing cancels.
    return weights_[row] > total_ / 2 ? light_ : total_ - weights_[row];
  }

 private:
  const double* weights_;
  bool leave_one_out_;
  double total_, light_ = 0;
};

template <class T>
std::vector<T> mean(const T* x, int64_t begin, int64_t end, int64_t d) {
  std::vector<double> sums(d);
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t k = 0; k < d; ++k) sums[k] += static_cast<double>(x[i * d + k]);
  }
  std::vector<T> result(d);
  for (int64_t k = 0; k < d && begin < end; ++k) result[k] = static_cast<T>(sums[k] / static_cast<double>(end - begin));
  return result;
}

struct Problem {
  int64_t d, width;
  const double* weights;  // [n] or null
  double scale, log_volume;
  bool leave_one_out;
};

template <class T>
void write(const Problem& problem, const double* parts, int64_t count, int64_t stride, int64_t begin, int64_t end,
           const TotalWeight& total, T* out) {
  torch::stable::parallel_for(begin, end, 256, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const double log_sum = std::log(2.0) * log2_sum(parts + i - begin, count, stride);
      out[i] = static_cast<T>(log_sum == -kInfinity ? log_sum : log_sum - std::log(total(i)) - problem.log_volume);
    }
  });
}

// Every row against its own segment, each pair of blocks once: the product serves both sides.
template <class T>
void within(const Problem& problem, const T* x, const std::vector<Segment>& segments, T* out) {
  constexpr bool f64 = sizeof(T) == 8;
  const int64_t width = problem.width, d = problem.d;
  const int64_t panels = segments.back().panel + segments.back().panels;
  const Packed packed(panels, width, d, f64);
  int64_t slots = 0;
  for (const auto& s : segments) {
    const std::vector<T> centre = mean(x, s.begin, s.end, d);
    pack({x, centre.data(), problem.weights, d, f64}, s, width, packed.rows);
    const int64_t block = block_panels(s.panels, width);
    slots += (s.panels + block - 1) / block * s.panels * width;
  }
  const Memory parts_memory = allocate(slots * sizeof(double));
  double* parts = reinterpret_cast<double*>(parts_memory.get());
  std::vector<KdeItem> items;
  for (const auto& s : segments) {
    const int64_t block = block_panels(s.panels, width), blocks = (s.panels + block - 1) / block, rows = s.panels * width;
    for (int64_t i = 0; i < blocks; ++i) {
      for (int64_t j = i; j < blocks; ++j) {
        const int64_t q = i * block, r = j * block;
        items.push_back({s.panel + q, s.panel + std::min(q + block, s.panels), s.panel + r, s.panel + std::min(r + block, s.panels),
                         problem.leave_one_out && i == j, parts + j * rows + q * width,
                         i == j ? nullptr : parts + i * rows + r * width});
      }
    }
    parts += blocks * rows;
  }
  run({packed.rows, packed.rows, d, problem.scale, f64}, items);
  parts = reinterpret_cast<double*>(parts_memory.get());
  for (const auto& s : segments) {
    const int64_t block = block_panels(s.panels, width), blocks = (s.panels + block - 1) / block, rows = s.panels * width;
    write(problem, parts, blocks, rows, s.begin, s.end, TotalWeight(problem.weights, s.begin, s.end, problem.leave_one_out), out);
    parts += blocks * rows;
  }
}

template <class T>
void across(const Problem& problem, const T* queries, int64_t count, const T* x, int64_t n, T* out) {
  constexpr bool f64 = sizeof(T) == 8;
  const int64_t width = problem.width, d = problem.d;
  const Segment q{0, count, 0, (count + width - 1) / width}, s{0, n, 0, (n + width - 1) / width};
  const Packed packed_q(q.panels, width, d, f64), packed_x(s.panels, width, d, f64);
  const std::vector<T> centre = mean(x, 0, n, d);
  pack({queries, centre.data(), nullptr, d, f64}, q, width, packed_q.rows);
  pack({x, centre.data(), problem.weights, d, f64}, s, width, packed_x.rows);
  const int64_t q_block = block_panels(q.panels, width), x_block = block_panels(s.panels, width);
  const int64_t blocks = (s.panels + x_block - 1) / x_block, rows = q.panels * width;
  const Memory memory = allocate(blocks * rows * sizeof(double));
  double* parts = reinterpret_cast<double*>(memory.get());
  std::vector<KdeItem> items;
  for (int64_t i = 0; i < q.panels; i += q_block) {
    for (int64_t j = 0; j < blocks; ++j) {
      items.push_back({i, std::min(i + q_block, q.panels), j * x_block, std::min((j + 1) * x_block, s.panels), false,
                       parts + j * rows + i * width, nullptr});
    }
  }
  run({packed_q.rows, packed_x.rows, d, problem.scale, f64}, items);
  write(problem, parts, blocks, rows, 0, count, TotalWeight(problem.weights, 0, n, false), out);
}

template <class T>
Tensor log_density(Problem problem, const Tensor& x, const std::optional<Tensor>& queries, const std::vector<int64_t>& offsets) {
  problem.width = FASTDD_DISPATCH(kde_panel_rows, sizeof(T) == 8);
  const int64_t n = x.size(0);
  if (queries.has_value()) {
    const Tensor q = torch::stable::contiguous(*queries);
    Tensor out = torch::stable::new_empty(x, {q.size(0)});
    across(problem, q.const_data_ptr<T>(), q.size(0), x.const_data_ptr<T>(), n, out.mutable_data_ptr<T>());
    return out;
  }
  Tensor out = torch::stable::new_empty(x, {n});
  std::vector<Segment> group;
  int64_t panels = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t rows = offsets[s + 1] - offsets[s], needed = (rows + problem.width - 1) / problem.width;
    if (rows == 0) continue;
    if (!group.empty() && (panels + needed) * problem.width > kGroupRows) {
      within(problem, x.const_data_ptr<T>(), group, out.mutable_data_ptr<T>());
      group.clear();
      panels = 0;
    }
    group.push_back({offsets[s], offsets[s + 1], panels, needed});
    panels += needed;
  }
  if (!group.empty()) within(problem, x.const_data_ptr<T>(), group, out.mutable_data_ptr<T>());
  return out;
}

Tensor kde(const Tensor& input, const std::optional<Tensor>& queries, const std::optional<Tensor>& weights,
           const std::optional<Tensor>& offsets, double bandwidth, bool leave_one_out, std::string) {
  STD_TORCH_CHECK(input.dim() == 2, "x must be [N, D]");
  const Tensor x = torch::stable::contiguous(input);
  const int64_t n = x.size(0), d = x.size(1);
  const bool f64 = x.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(f64 || x.scalar_type() == ScalarType::Float, "x must be float32 or float64");
  if (queries.has_value()) {
    STD_TORCH_CHECK(queries->dim() == 2 && queries->size(1) == d, "queries must be [M, D]");
    STD_TORCH_CHECK(queries->scalar_type() == x.scalar_type(), "queries must have x's dtype");
    STD_TORCH_CHECK(!offsets.has_value() && !leave_one_out, "offsets and leave_one_out go without queries");
  }
  std::vector<int64_t> bounds{0, n};
  if (offsets.has_value()) {
    STD_TORCH_CHECK(offsets->dim() == 1 && offsets->size(0) >= 1 && offsets->scalar_type() == ScalarType::Long,
                    "offsets must be int64 [S+1]");
    const Tensor o = torch::stable::contiguous(*offsets);
    bounds.assign(o.const_data_ptr<int64_t>(), o.const_data_ptr<int64_t>() + o.size(0));
    STD_TORCH_CHECK(bounds.front() == 0 && bounds.back() == n, "offsets must go from 0 to the number of rows");
    STD_TORCH_CHECK(std::is_sorted(bounds.begin(), bounds.end()), "offsets must not decrease");
  }
  Tensor w = x;
  if (weights.has_value()) {
    STD_TORCH_CHECK(weights->dim() == 1 && weights->size(0) == n, "weights must have one entry a row");
    w = torch::stable::contiguous(torch::stable::to(*weights, ScalarType::Double));
  }
  const double two_pi = 6.283185307179586;
  const Problem problem{d, 0, weights.has_value() ? w.const_data_ptr<double>() : nullptr, 1 / (2 * std::log(2.0) * bandwidth * bandwidth),
                        static_cast<double>(d) * (std::log(bandwidth) + std::log(two_pi) / 2), leave_one_out};
  return f64 ? log_density<double>(problem, x, queries, bounds) : log_density<float>(problem, x, queries, bounds);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) { m.impl("kde", TORCH_BOX(&kde)); }
