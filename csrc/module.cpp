// Module fastdd._C: importing it loads the registrations of the other files; build_info() says how it was built.
#include <pybind11/pybind11.h>

#include <cstdlib>
#include <string>

#include "simd.h"

namespace fastdd {

Simd simd() {
  static const Simd chosen = [] {
    Simd widest = Simd::baseline;
#if defined(__x86_64__) || defined(__i386__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) widest = Simd::avx2;
    if (widest == Simd::avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      widest = __builtin_cpu_supports("avx512bf16") ? Simd::avx512bf16 : Simd::avx512;
    }
#endif
    const char* asked = std::getenv("FASTDD_SIMD");
    const std::string name = asked == nullptr ? "" : asked;
    if (name == "baseline") return Simd::baseline;
    if (name == "avx2" && widest > Simd::avx2) return Simd::avx2;
    if (name == "avx512" && widest > Simd::avx512) return Simd::avx512;
    return widest;
  }();
  return chosen;
}

}  // namespace fastdd

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["version"] = FASTDD_VERSION;
  info["source_hash"] = FASTDD_SOURCE_HASH;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["build_type"] = FASTDD_BUILD_TYPE;
  info["cuda"] = std::string(FASTDD_CUDA_ARCHS) != "";
  info["cuda_archs"] = FASTDD_CUDA_ARCHS;
  info["simd"] = FASTDD_SIMD;
  const char* names[] = {"baseline", "avx2", "avx512", "avx512bf16"};
  info["simd_active"] = names[static_cast<int>(fastdd::simd())];
  info["torch_target"] = "2.10";
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) { m.def("build_info", &build_info); }
