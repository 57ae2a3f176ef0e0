// Compiled once per instruction set (FASTDD_VARIANT); see segment_mean_cpu.cpp for what that forbids.
#include "formation_cpu.h"

#include <cstdlib>
#include <cstring>

#include "formation_image.h"

namespace fastdd {
namespace {

template <class T>
T* memory_for(int64_t elements) {
  return static_cast<T*>(std::malloc(elements * sizeof(T)));
}

template <class T, class In>
bool forward(const FormationCall& call, int64_t begin, int64_t end) {
  const int64_t count = int64_t(call.channels) * call.f.out_height * call.f.out_width;
  T* const scratch = memory_for<T>(formation_scratch(call) + (sizeof(T) == sizeof(In) ? 0 : count));
  if (scratch == nullptr) return false;
  In* const out = static_cast<In*>(call.out);
  for (int64_t n = begin; n < end; ++n) {
    if constexpr (sizeof(T) == sizeof(In)) {
      enlarge<T, In>(call, n, scratch, out + n * count);
    } else {
      T* const image = scratch + formation_scratch(call);
      enlarge<T, In>(call, n, scratch, image);
      for_lanes<In>(count, [&](int64_t i, auto part) { part.store(out + n * count + i, part.load(image + i)); });
    }
  }
  std::free(scratch);
  return true;
}

template <class T, class In>
bool adjoint(const FormationCall& call, int64_t begin, int64_t end) {
  const int64_t count = int64_t(call.channels) * call.f.height * call.f.width;
  const int64_t of_g = int64_t(call.channels) * call.f.out_height * call.f.out_width;
  T* const scratch = memory_for<T>(formation_scratch(call) + (sizeof(T) == sizeof(In) ? 0 : count + of_g));
  if (scratch == nullptr) return false;
  In* const out = static_cast<In*>(call.out);
  for (int64_t m = begin; m < end; ++m) {
    T *total, *converted = nullptr;
    if constexpr (sizeof(T) == sizeof(In)) {
      total = out + m * count;
    } else {
      total = scratch + formation_scratch(call);
      converted = total + count;
    }
    std::memset(total, 0, count * sizeof(T));
    for (int64_t k = call.offsets[m]; k < call.offsets[m + 1]; ++k) {
      const In* const g = static_cast<const In*>(call.in) + call.members[k] * of_g;
      if constexpr (sizeof(T) == sizeof(In)) {
        shrink<T>(call, call.members[k], g, scratch, total);
      } else {
        for_lanes<In>(of_g, [&](int64_t i, auto part) { part.store(converted + i, part.load(g + i)); });
        shrink<T>(call, call.members[k], converted, scratch, total);
      }
    }
    if constexpr (sizeof(T) != sizeof(In)) {
      for_lanes<In>(count, [&](int64_t i, auto part) { part.store(out + m * count + i, part.load(total + i)); });
    }
  }
  std::free(scratch);
  return true;
}

}  // namespace

namespace FASTDD_VARIANT {

bool formation_images(const FormationCall& call, int64_t begin, int64_t end) {
  switch (call.dtype) {
    case Dtype::f64: return forward<double, double>(call, begin, end);
    case Dtype::bf16: return forward<float, bf16>(call, begin, end);
    default: return forward<float, float>(call, begin, end);
  }
}

bool formation_adjoint_images(const FormationCall& call, int64_t begin, int64_t end) {
  switch (call.dtype) {
    case Dtype::f64: return adjoint<double, double>(call, begin, end);
    case Dtype::bf16: return adjoint<float, bf16>(call, begin, end);
    default: return adjoint<float, float>(call, begin, end);
  }
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
