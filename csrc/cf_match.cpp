// fastdd::cf_means, cf_pull and cf_frequencies for CPU tensors. Shapes and dtypes are checked in fastdd/ops/cf_match.py; what
// would read or write out of bounds is checked again here.
#include "cf_match_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "class_lists.h"
#include "scratch.h"
#include "segment_mean.h"

namespace {

using fastdd::CfCall;
using fastdd::CfPack;
using fastdd::Dtype;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Blocks of rows that one task of a pull goes over: its frequencies are packed once for all of them.
constexpr int64_t kBlocks = 4;
// Tasks of a pull, if there are fewer groups of blocks: their sums are added in order, so that results do not depend on threads.
constexpr int64_t kParts = 16;

fastdd::Floats scratch(int64_t bytes) { return fastdd::aligned((bytes + 3) / 4); }

// Contiguous inputs, and what is known of every segment.
struct Prepared {
  Tensor x, t, of;
  bool f64 = false;
  Dtype dtype = Dtype::f32;
  int64_t n, d, frequencies, num_segments, sets;
  fastdd::Segments segments;
  fastdd::ClassLists lists;

  Prepared(const Tensor& rows, const Tensor& vectors, const Tensor& offsets, const std::optional<Tensor>& weights,
           const Tensor& classes)
      : x(contiguous(rows)), t(torch::stable::contiguous(vectors)), of(torch::stable::contiguous(classes)),
        f64(x.scalar_type() == ScalarType::Double), n(x.size(0)), d(x.size(1)), frequencies(t.size(1)),
        num_segments(of.size(0)), sets(t.size(0)), segments(offsets, weights, n, f64), lists(checked(), num_segments, count()) {
    if (x.scalar_type() == ScalarType::BFloat16) dtype = Dtype::bf16;
    if (f64) dtype = Dtype::f64;
  }

  static Tensor contiguous(const Tensor& rows) {
    STD_TORCH_CHECK(rows.dim() == 2, "x must be [N, D]");
    const ScalarType type = rows.scalar_type();
    STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
                        type == ScalarType::Half,
                    "x must be float32, float64, bfloat16 or float16");
    return torch::stable::contiguous(type == ScalarType::Half ? torch::stable::to(rows, ScalarType::Float) : rows);
  }

  const int64_t* checked() const {
    STD_TORCH_CHECK(t.dim() == 3 && t.size(2) == d && t.scalar_type() == type(), "t must be [C, K, D], float64 if x is");
    STD_TORCH_CHECK(of.dim() == 1 && of.scalar_type() == ScalarType::Long && segments.count == num_segments,
                    "classes must be int64 [S]");
    const int64_t* c = of.const_data_ptr<int64_t>();
    for (int64_t s = 0; s < num_segments; ++s) {
      STD_TORCH_CHECK(c[s] >= 0 && (sets == 1 || c[s] < sets), "classes[", s, "] = ", c[s], " has no frequencies");
    }
    return c;
  }

  int64_t count() const {
    const int64_t* c = of.const_data_ptr<int64_t>();
    return num_segments == 0 ? 0 : *std::max_element(c, c + num_segments) + 1;
  }

  ScalarType type() const { return f64 ? ScalarType::Double : ScalarType::Float; }
  int64_t bytes() const { return f64 ? 8 : 4; }
  double weight(int64_t row) const {
    if (segments.weights == nullptr) return 1;
    return f64 ? static_cast<const double*>(segments.weights)[row] : static_cast<const float*>(segments.weights)[row];
  }
};

// The rows of one class, packed.
struct ClassRows {
  std::vector<int64_t> rows, segments, outputs;
  std::vector<double> shares;
  fastdd::Floats packed;
  int64_t blocks;
  CfCall call{};

  ClassRows(const Prepared& p, int64_t c, Tensor& means) : packed(scratch(0)) {
    for (int64_t i = p.lists.starts[c]; i < p.lists.starts[c + 1]; ++i) {
      const int64_t s = p.lists.members[i];
      const double total = p.segments.totals[s];
      for (int64_t row = p.segments.offsets[s]; row < p.segments.offsets[s + 1] && total != 0; ++row) {
        rows.push_back(row);
        segments.push_back(static_cast<int64_t>(outputs.size()));
        shares.push_back(p.weight(row) / total);
      }
      outputs.push_back(s);
    }
    const int64_t block = FASTDD_DISPATCH(cf_block_rows, ), count = static_cast<int64_t>(rows.size());
    blocks = (count + block - 1) / block;
    packed = scratch(std::max<int64_t>(1, blocks * block * p.d * p.bytes()));
    const CfPack pack{p.x.const_data_ptr(), p.dtype, rows.data(), count, p.d, packed.get()};
    torch::stable::parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) FASTDD_DISPATCH(cf_pack, pack, b);
    });
    const char* t = static_cast<const char*>(p.t.const_data_ptr()) + (p.sets == 1 ? 0 : c) * p.frequencies * p.d * p.bytes();
    call = {packed.get(), count, shares.data(), segments.data(), static_cast<int64_t>(outputs.size()), outputs.data(),
            t, p.frequencies, p.d, p.f64, means.mutable_data_ptr()};
  }
};

Tensor cf_means(const Tensor& x, const Tensor& t, const Tensor& offsets, const std::optional<Tensor>& weights, const Tensor& classes) {
  const Prepared p(x, t, offsets, weights, classes);
  Tensor out = torch::stable::new_empty(p.t, {p.num_segments, p.frequencies, 2});
  const int64_t panel = FASTDD_DISPATCH(cf_panel, p.f64), panels = (p.frequencies + panel - 1) / panel;
  for (int64_t c = 0; c + 1 < static_cast<int64_t>(p.lists.starts.size()); ++c) {
    if (p.lists.starts[c] == p.lists.starts[c + 1]) continue;
    const ClassRows rows(p, c, out);
    torch::stable::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
      const auto memory = scratch(FASTDD_DISPATCH(cf_means_scratch, rows.call));
      for (int64_t i = begin; i < end; ++i) {
        FASTDD_DISPATCH(cf_means_panel, rows.call, i, reinterpret_cast<char*>(memory.get()));
      }
    });
  }
  return out;
}

// Adds the parts' sums of every row in order, and puts the rows where they belong.
template <class T>
void finish(const ClassRows& rows, const T* sums, int64_t parts, int64_t size, int64_t stride, int64_t d, T* out) {
  torch::stable::parallel_for(0, rows.call.count, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* to = out + rows.rows[i] * d;
      for (int64_t k = 0; k < d; ++k) {
        double total = 0;
        for (int64_t part = 0; part < parts; ++part) total += sums[part * size + i * stride + k];
        to[k] = static_cast<T>(total);
      }
    }
  });
}

void pull_class(const Prepared& p, const ClassRows& rows, Tensor& out) {
  const int64_t block = FASTDD_DISPATCH(cf_block_rows, ), stride = FASTDD_DISPATCH(cf_padded, p.f64, p.d);
  const int64_t panel = FASTDD_DISPATCH(cf_panel, p.f64), panels = (p.frequencies + panel - 1) / panel;
  const int64_t groups = (rows.blocks + kBlocks - 1) / kBlocks;
  const int64_t parts = std::max<int64_t>(1, std::min(panels, kParts / std::max<int64_t>(1, groups)));
  const int64_t size = rows.blocks * block * stride;
  const auto sums = scratch(std::max<int64_t>(1, parts * size * p.bytes()));
  std::memset(sums.get(), 0, parts * size * p.bytes());
  torch::stable::parallel_for(0, groups * parts, 1, [&](int64_t first, int64_t last) {
    const auto memory = scratch(FASTDD_DISPATCH(cf_pull_scratch, rows.call, kBlocks));
    for (int64_t i = first; i < last; ++i) {
      const int64_t part = i / groups, begin = i % groups * kBlocks, end = std::min(begin + kBlocks, rows.blocks);
      char* to = reinterpret_cast<char*>(sums.get()) + (part * size + begin * block * stride) * p.bytes();
      FASTDD_DISPATCH(cf_pull_part, rows.call, begin, end, panels * part / parts, panels * (part + 1) / parts, to,
                      reinterpret_cast<char*>(memory.get()));
    }
  });
  if (p.f64) {
    finish(rows, reinterpret_cast<const double*>(sums.get()), parts, size, stride, p.d, out.mutable_data_ptr<double>());
  } else {
    finish(rows, sums.get(), parts, size, stride, p.d, out.mutable_data_ptr<float>());
  }
}

Tensor cf_pull(const Tensor& g, const Tensor& x, const Tensor& t, const Tensor& offsets, const std::optional<Tensor>& weights,
               const Tensor& classes) {
  const Prepared p(x, t, offsets, weights, classes);
  STD_TORCH_CHECK(g.dim() == 3 && g.size(0) == p.num_segments && g.size(1) == p.frequencies && g.size(2) == 2 &&
                      g.scalar_type() == p.type(),
                  "g must be [S, K, 2], of t's dtype");
  Tensor gradient = torch::stable::contiguous(g);
  Tensor out = torch::stable::new_zeros(p.t, {p.n, p.d});
  if (p.n * p.d == 0) return out;
  for (int64_t c = 0; c + 1 < static_cast<int64_t>(p.lists.starts.size()); ++c) {
    if (p.lists.starts[c] == p.lists.starts[c + 1]) continue;
    const ClassRows rows(p, c, gradient);
    if (rows.call.count > 0) pull_class(p, rows, out);
  }
  return out;
}

uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

Tensor cf_frequencies(const Tensor& keys, int64_t n) {
  STD_TORCH_CHECK(keys.dim() == 1 && keys.scalar_type() == ScalarType::Long && n >= 0, "keys must be int64 [C], and n at least 0");
  const Tensor of = torch::stable::contiguous(keys);
  Tensor out = torch::stable::new_empty(of, {of.size(0), n}, ScalarType::Float);
  for (int64_t c = 0; c < of.size(0) && n > 0; ++c) {
    // The draws of fastdd.core.rng.bits.
    const uint64_t start = mixed(static_cast<uint64_t>(of.const_data_ptr<int64_t>()[c]) ^ 0x5851F42D4C957F2Dull);
    float* to = out.mutable_data_ptr<float>() + c * n;
    torch::stable::parallel_for(0, (n + 1) / 2, 16384, [&](int64_t begin, int64_t end) {
      FASTDD_DISPATCH(cf_normals, start, begin, end, n, to);
    });
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("cf_means", TORCH_BOX(&cf_means));
  m.impl("cf_pull", TORCH_BOX(&cf_pull));
  m.impl("cf_frequencies", TORCH_BOX(&cf_frequencies));
}
