// Arithmetic of one augmented image, shared by the CPU and the CUDA kernels, so that tests on a CPU cover both.
//
// Pixel (x, y) of the result samples the source at (a x + b y + c, d x + e y + f), in pixels, bilinearly, with zeros outside.
// Then brightness, saturation, contrast and cutout. For given parameters the result is M K S W source + constant, with
// W the warp (sparse), S and K convex or affine combinations of the identity and a mean (symmetric), and M a 0/1 mask;
// so the adjoint is W^T S K M, and W^T is a gather: source pixel (u, v) visits the few result pixels that sampled it.
#pragma once

#include "host_device.h"

namespace fastdd {

// Columns of a parameter row; the same numbers are in fastdd/ops/augment.py.
enum Column { kA, kB, kC, kD, kE, kF, kBrightness, kSaturation, kContrast, kTop, kLeft, kBottom, kRight, kColumns };

// Matrices whose smallest singular value is below this are refused: the adjoint's window grows with its inverse.
constexpr double kSmallestScale = 0.25;
// Result pixels that can have sampled one source pixel, per axis: 2 sqrt(2) / 0.25, rounded up, and one.
constexpr int kLargestWindow = 13;

template <class T>
struct Row {
  T a, b, c, d, e, f;
  T brightness, saturation, contrast;
  int top, left, bottom, right;
};

// To a whole number in [0, n]; NaN becomes 0.
template <class P>
FASTDD_HD int edge(P value, int n) {
  return value > P(0) ? (value < P(n) ? static_cast<int>(value) : n) : 0;
}

// P is the type the parameters are stored in, T the one they are used in. linear drops the constant (brightness).
template <class T, class P>
FASTDD_HD Row<T> read_row(const P* p, int height, int width, bool linear) {
  Row<T> r;
  r.a = static_cast<T>(p[kA]);
  r.b = static_cast<T>(p[kB]);
  r.c = static_cast<T>(p[kC]);
  r.d = static_cast<T>(p[kD]);
  r.e = static_cast<T>(p[kE]);
  r.f = static_cast<T>(p[kF]);
  r.brightness = linear ? T(0) : static_cast<T>(p[kBrightness]);
  r.saturation = static_cast<T>(p[kSaturation]);
  r.contrast = static_cast<T>(p[kContrast]);
  r.top = edge(p[kTop], height);
  r.left = edge(p[kLeft], width);
  r.bottom = edge(p[kBottom], height);
  r.right = edge(p[kRight], width);
  return r;
}

template <class T>
FASTDD_HD bool masked(const Row<T>& r, int x, int y) {
  return y >= r.top && y < r.bottom && x >= r.left && x < r.right;
}

// A coordinate moved to [-1, n]: there, every tap of an outside sample lies on the zero border. NaN goes to -1.
template <class T>
FASTDD_HD T to_border(T s, int n) {
  s = s > T(-1) ? s : T(-1);
  return s < T(n) ? s : T(n);
}

// Floor of a coordinate in [-1, n], by truncation of a non-negative number (which vectorises everywhere).
template <class T>
FASTDD_HD int floor_of(T s) {
  return static_cast<int>(s + T(1)) - 1;
}

// V is T, or a vector of T: the channels of a pixel.
template <class T, class V>
FASTDD_HD V bilinear(T fx, T fy, V p00, V p01, V p10, V p11) {
  const V above = p00 + fx * (p01 - p00), below = p10 + fx * (p11 - p10);
  return above + fy * (below - above);
}

FASTDD_HD float absolute(float t) { return __builtin_fabsf(t); }
FASTDD_HD double absolute(double t) { return __builtin_fabs(t); }

// Weight of the tap at distance t: what bilinear() uses, (1 - |t|)+.
template <class T>
FASTDD_HD T tent(T t) {
  const T w = T(1) - absolute(t);
  return w > T(0) ? w : T(0);
}

// (v - mean) * factor + mean: saturation with the mean over channels, contrast with the mean over the image.
// V and M are T or vectors of T.
template <class V, class M, class T>
FASTDD_HD V about_mean(V v, M mean, T factor) {
  return (v - mean) * factor + mean;
}

template <class T>
FASTDD_HD T normalise(T value, T mean, T std) {
  return (value / T(255) - mean) / std;
}

// Which result pixels sampled source pixel (u, v): x in [first_x, first_x + nx), and likewise y.
template <class T>
struct Window {
  T ia, ib, id, ie;  // inverse of the matrix
  T rx, ry;          // half widths
  int nx, ny;
  bool valid;
};

template <class T>
FASTDD_HD Window<T> window_of(const Row<T>& r) {
  Window<T> w;
  const T det = r.a * r.e - r.b * r.d;
  w.ia = r.e / det;
  w.ib = -r.b / det;
  w.id = -r.d / det;
  w.ie = r.a / det;
  // A candidate on the window's very edge has weight zero; the slack is for rounding.
  w.rx = absolute(w.ia) + absolute(w.ib) + T(1e-3);
  w.ry = absolute(w.id) + absolute(w.ie) + T(1e-3);
  w.valid = w.rx * 2 < T(kLargestWindow - 1) && w.ry * 2 < T(kLargestWindow - 1);  // false for NaN too
  w.nx = w.valid ? static_cast<int>(2 * w.rx) + 1 : 0;
  w.ny = w.valid ? static_cast<int>(2 * w.ry) + 1 : 0;
  return w;
}

// First whole number above s, for s anywhere: far outside [0, n) it is some number whose window is outside too.
template <class T>
FASTDD_HD int first_above(T s, int n) {
  constexpr int shift = kLargestWindow + 2;
  s = s > T(-shift) ? s : T(-shift);
  s = s < T(n) ? s : T(n);
  return static_cast<int>(s + T(shift)) - shift + 1;
}

template <class T>
FASTDD_HD int first_x(const Row<T>& r, const Window<T>& w, int u, int v, int width) {
  return first_above(w.ia * (T(u) - r.c) + w.ib * (T(v) - r.f) - w.rx, width);
}

template <class T>
FASTDD_HD int first_y(const Row<T>& r, const Window<T>& w, int u, int v, int height) {
  return first_above(w.id * (T(u) - r.c) + w.ie * (T(v) - r.f) - w.ry, height);
}

// Where result pixel (x, y) sampled, relative to source pixel (u, v).
template <class T>
FASTDD_HD T offset_x(const Row<T>& r, int x, int y, int u) {
  return r.a * T(x) + r.b * T(y) + r.c - T(u);
}

template <class T>
FASTDD_HD T offset_y(const Row<T>& r, int x, int y, int v) {
  return r.d * T(x) + r.e * T(y) + r.f - T(v);
}

// Weight with which the pixel i to the right of and j below one that sampled at offset (dx, dy) sampled (u, v).
template <class T>
FASTDD_HD T weight_of(const Row<T>& r, T dx, T dy, int i, int j) {
  return tent(dx + (r.a * T(i) + r.b * T(j))) * tent(dy + (r.d * T(i) + r.e * T(j)));
}

}  // namespace fastdd
