// fastdd::gradient_match_products, _combine, _distances, _pull, _absolutes and _signs for CPU tensors. Shapes and dtypes are
// checked in fastdd/ops/gradient_match.py; what would read or write out of bounds is checked again here.
#include "gradient_match_cpu.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "class_lists.h"

namespace {

using fastdd::Dtype;
using fastdd::Terms;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Contiguous inputs, the segments of every class, and the call that points into them.
struct Prepared {
  Tensor a, b, of;
  fastdd::ClassLists lists;
  fastdd::RowsCall call{};
  int64_t segments, classes;

  Prepared(const Tensor& real, const Tensor& synthetic, const Tensor& owners, Terms terms)
      : a(torch::stable::contiguous(real)), b(torch::stable::contiguous(synthetic)), of(checked(owners, real, synthetic)),
        lists(of.const_data_ptr<int64_t>(), real.size(0), synthetic.size(0)) {
    switch (a.scalar_type()) {
      case ScalarType::Float: call.dtype = Dtype::f32; break;
      case ScalarType::Double: call.dtype = Dtype::f64; break;
      case ScalarType::BFloat16: call.dtype = Dtype::bf16; break;
      case ScalarType::Half:
        a = torch::stable::to(a, ScalarType::Float);
        call.dtype = Dtype::f32;
        break;
      default: STD_TORCH_CHECK(false, "a must be float32, float64, bfloat16 or float16");
    }
    STD_TORCH_CHECK(b.scalar_type() == type(), "b must be float64 if a is, and float32 otherwise");
    segments = a.size(0);
    classes = b.size(0);
    call.a = a.const_data_ptr();
    call.b = b.const_data_ptr();
    call.starts = lists.starts.data();
    call.members = lists.members.data();
    call.rows = a.size(1);
    call.columns = a.size(2);
    call.block = std::max<int64_t>(1, fastdd::kBlockElements / std::max<int64_t>(1, call.columns));
    call.terms = terms;
  }

  static Tensor checked(const Tensor& owners, const Tensor& real, const Tensor& synthetic) {
    STD_TORCH_CHECK(real.dim() == 3 && synthetic.dim() == 3, "a must be [S, R, K] and b [C, R, K]");
    STD_TORCH_CHECK(real.size(1) == synthetic.size(1) && real.size(2) == synthetic.size(2), "a and b must have the same rows");
    STD_TORCH_CHECK(owners.dim() == 1 && owners.size(0) == real.size(0) && owners.scalar_type() == ScalarType::Long,
                    "classes must be int64 [S]");
    Tensor of = torch::stable::contiguous(owners);
    const int64_t* c = of.const_data_ptr<int64_t>();
    for (int64_t s = 0; s < of.size(0); ++s) {
      STD_TORCH_CHECK(c[s] >= -1 && c[s] < synthetic.size(0), "classes[", s, "] = ", c[s], " is not below ", synthetic.size(0));
    }
    return of;
  }

  ScalarType type() const { return call.dtype == Dtype::f64 ? ScalarType::Double : ScalarType::Float; }

  // [S, R], zero for the absent segments.
  Tensor row_output() const {
    Tensor out = torch::stable::new_empty(b, {segments, call.rows});
    const size_t bytes = call.rows * (call.dtype == Dtype::f64 ? 8 : 4);
    if (bytes == 0) return out;
    char* to = static_cast<char*>(out.mutable_data_ptr());
    for (int64_t s = 0; s < segments; ++s) {
      if (of.const_data_ptr<int64_t>()[s] < 0) std::memset(to + s * bytes, 0, bytes);
    }
    return out;
  }

  Tensor row_input(const Tensor& t) const {
    STD_TORCH_CHECK(t.dim() == 2 && t.size(0) == segments && t.size(1) == call.rows && t.scalar_type() == type(),
                    "p and q must be [S, R], of b's dtype");
    return torch::stable::contiguous(t);
  }

  template <class Run>
  void for_blocks(Run run) const {
    const int64_t items = classes * ((call.rows + call.block - 1) / call.block);
    // About 32,000 elements to a task: below that, waking a thread costs more than the arithmetic.
    const int64_t each = (segments + classes) * call.rows * call.columns / std::max<int64_t>(1, items);
    torch::stable::parallel_for(0, items, std::max<int64_t>(1, 32768 / std::max<int64_t>(1, each)), run);
  }

  void multiply() const {
    for_blocks([&](int64_t begin, int64_t end) { FASTDD_DISPATCH(multiply_rows, call, begin, end); });
  }

  Tensor combine() {
    Tensor out = torch::stable::new_empty(b, {classes, call.rows, call.columns});
    call.out = out.mutable_data_ptr();
    for_blocks([&](int64_t begin, int64_t end) { FASTDD_DISPATCH(combine_rows, call, begin, end); });
    return out;
  }
};

std::tuple<Tensor, Tensor, Tensor> gradient_match_products(const Tensor& a, const Tensor& b, const Tensor& classes) {
  Prepared p(a, b, classes, Terms::products);
  Tensor ab = p.row_output(), aa = p.row_output(), bb = p.row_output();
  p.call.ab = ab.mutable_data_ptr();
  p.call.aa = aa.mutable_data_ptr();
  p.call.bb = bb.mutable_data_ptr();
  p.multiply();
  return {ab, aa, bb};
}

Tensor gradient_match_combine(const Tensor& p, const Tensor& q, const Tensor& a, const Tensor& b, const Tensor& classes) {
  Prepared prepared(a, b, classes, Terms::products);
  const Tensor of_a = prepared.row_input(p), of_b = prepared.row_input(q);
  prepared.call.p = of_a.const_data_ptr();
  prepared.call.q = of_b.const_data_ptr();
  return prepared.combine();
}

Tensor sums_of_differences(const Tensor& a, const Tensor& b, const Tensor& classes, Terms terms) {
  Prepared p(a, b, classes, terms);
  Tensor out = p.row_output();
  p.call.ab = out.mutable_data_ptr();
  p.multiply();
  return out;
}

Tensor pull_of_differences(const Tensor& p, const Tensor& a, const Tensor& b, const Tensor& classes, Terms terms) {
  Prepared prepared(a, b, classes, terms);
  const Tensor of_difference = prepared.row_input(p);
  prepared.call.p = of_difference.const_data_ptr();
  return prepared.combine();
}

Tensor gradient_match_distances(const Tensor& a, const Tensor& b, const Tensor& classes) {
  return sums_of_differences(a, b, classes, Terms::squares);
}

Tensor gradient_match_pull(const Tensor& p, const Tensor& a, const Tensor& b, const Tensor& classes) {
  return pull_of_differences(p, a, b, classes, Terms::squares);
}

Tensor gradient_match_absolutes(const Tensor& a, const Tensor& b, const Tensor& classes) {
  return sums_of_differences(a, b, classes, Terms::absolutes);
}

Tensor gradient_match_signs(const Tensor& p, const Tensor& a, const Tensor& b, const Tensor& classes) {
  return pull_of_differences(p, a, b, classes, Terms::absolutes);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdd, CPU, m) {
  m.impl("gradient_match_products", TORCH_BOX(&gradient_match_products));
  m.impl("gradient_match_combine", TORCH_BOX(&gradient_match_combine));
  m.impl("gradient_match_distances", TORCH_BOX(&gradient_match_distances));
  m.impl("gradient_match_pull", TORCH_BOX(&gradient_match_pull));
  m.impl("gradient_match_absolutes", TORCH_BOX(&gradient_match_absolutes));
  m.impl("gradient_match_signs", TORCH_BOX(&gradient_match_signs));
}
