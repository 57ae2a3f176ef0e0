// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp. Formulas: fastdd/reference/norm_act_pool.py.
//
// One image at a time: its activations are read from memory once, for the statistics, and again from cache.
#include "norm_act_pool_cpu.h"

#include "lanes.h"

namespace fastdd {
namespace {

inline float square_root(float v) { return __builtin_sqrtf(v); }
inline double square_root(double v) { return __builtin_sqrt(v); }

// Channel vectors kept for an image; each row is padded to whole vectors.
template <class T>
struct Image {
  using L = Lanes<T>;
  using A = typename L::Scalar;
  using V = typename L::Vector;
  static constexpr int64_t kLanes = L::kCount;

  int64_t height, width, channels, padded, pixels;
  A *scale, *shift, *mean, *rstd, *sums;  // z = scale (x - mean) + shift: nothing large cancels

  Image(const NormActPoolCall& call, void* scratch)
      : height(call.height), width(call.width), channels(call.channels), padded((channels + kLanes - 1) / kLanes * kLanes),
        pixels(height * width) {
    scale = static_cast<A*>(scratch);
    shift = scale + padded;
    mean = shift + padded;
    rstd = mean + padded;
    sums = rstd + padded;
  }

  A* sum(int k) { return sums + k * padded; }

  void clear(int count) { std::memset(sums, 0, count * padded * sizeof(A)); }

  // Adds the second `count` sums to the first, and clears them: sums over many windows go by way of sums over a few, so that
  // their rounding errors do not grow with the image.
  void flush(int count) {
    A* few = sums + count * padded;
    for (int64_t c = 0; c < count * padded; ++c) {
      sums[c] += few[c];
      few[c] = 0;
    }
  }

  void affine(const NormActPoolCall& call) {
    const A* weight = static_cast<const A*>(call.weight);
    const A* bias = static_cast<const A*>(call.bias);
    for (int64_t c = 0; c < padded; ++c) {
      const bool real = c < channels;
      scale[c] = real ? weight[c] * rstd[c] : 0;
      shift[c] = real ? bias[c] : 0;
    }
  }

  void known_stats(const NormActPoolCall& call, int64_t n) {
    const A* stats = static_cast<const A*>(call.stats) + 2 * n * channels;
    for (int64_t c = 0; c < padded; ++c) {
      mean[c] = c < channels ? stats[c] : 0;
      rstd[c] = c < channels ? stats[channels + c] : 0;
    }
    affine(call);
  }

  // Mean and variance in blocks of pixels, each block from its own mean, blocks merged (Chan, Golub and LeVeque 1979): no
  // difference of large squares. All relative to the first pixel, so that a large mean is rounded only once. What a merge
  // rounds off goes into the next (Kahan 1965): an image of 64x64 has 256 blocks, and its pixels share these errors.
  void find_stats(const NormActPoolCall& call, const T* x, int64_t n) {
    constexpr int64_t kBlock = 16;
    A *squares = sum(0), *lost_mean = sum(1), *lost_squares = sum(2);
    std::memset(mean, 0, padded * sizeof(A));
    clear(3);
    const auto add = [](A* total, A* lost, V value) {
      const V before = Lanes<A>::load(total), rest = value - Lanes<A>::load(lost), after = before + rest;
      Lanes<A>::store(lost, (after - before) - rest);
      Lanes<A>::store(total, after);
    };
    for (int64_t start = 0; start < pixels; start += kBlock) {
      const int64_t count = pixels - start < kBlock ? pixels - start : kBlock;
      const A to_mean = A(count) / A(start + count), to_square = A(start) * to_mean, inverse = A(1) / A(count);
      for_lanes<T>(channels, [&](int64_t c, auto part) {
        const T* at = x + start * channels + c;
        const V first = part.load(x + c);
        V v[kBlock], sum = {}, square = {};
        if (count == kBlock) {
          for (int p = 0; p < kBlock; ++p) sum += v[p] = part.load(at + p * channels) - first;
          const V own = sum * inverse;
          for (int p = 0; p < kBlock; ++p) square += (v[p] - own) * (v[p] - own);
        } else {
          for (int64_t p = 0; p < count; ++p) sum += part.load(at + p * channels) - first;
          const V own = sum * inverse;
          for (int64_t p = 0; p < count; ++p) {
            const V apart = part.load(at + p * channels) - first - own;
            square += apart * apart;
          }
        }
        const V delta = sum * inverse - Lanes<A>::load(mean + c);
        add(mean + c, lost_mean + c, delta * to_mean);
        add(squares + c, lost_squares + c, square + delta * delta * to_square);
      });
    }
    for_lanes<T>(channels, [&](int64_t c, auto part) {
      Lanes<A>::store(mean + c, Lanes<A>::load(mean + c) + part.load(x + c));
    });
    A* stats = static_cast<A*>(call.stats) + 2 * n * channels;
    for (int64_t c = 0; c < channels; ++c) {
      rstd[c] = A(1) / square_root(squares[c] / A(pixels) + A(call.eps));
      stats[c] = mean[c];
      stats[channels + c] = rstd[c];
    }
    affine(call);
  }
};

// ReLU that hands NaN on: a run must see it.
template <class V>
inline V positive(V v) {
  return v < 0 ? V{} : v;
}

// Calls visit(pixels, window): `pixels` are the offsets of the K pixels of a window, `window` that of its output; and
// rest(pixel) for every pixel that is in no window.
template <int K, class T, class Visit, class Rest>
inline void for_windows(const Image<T>& image, Visit visit, Rest rest) {
  const int64_t w = image.width, c = image.channels;
  if constexpr (K == 1) {
    for (int64_t p = 0; p < image.pixels; ++p) {
      const int64_t at[1] = {p * c};
      visit(at, p * c);
    }
  } else {
    const int64_t rows = image.height / 2, columns = w / 2;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const int64_t first = (2 * i * w + 2 * j) * c;
        const int64_t at[4] = {first, first + c, first + w * c, first + (w + 1) * c};
        visit(at, (i * columns + j) * c);
      }
      for (int64_t j = 2 * columns; j < w; ++j) {
        rest((2 * i * w + j) * c);
        rest(((2 * i + 1) * w + j) * c);
      }
    }
    for (int64_t p = 2 * rows * w; p < image.pixels; ++p) rest(p * c);
  }
}

// How much of a window's gradient each of its K pixels gets, from their z: G = g * share.
template <class A, Pool P, int K, class V>
inline void shares(const V (&z)[K], V (&share)[K]) {
  if constexpr (P == Pool::max) {
    V best = z[0];
    for (int k = 1; k < K; ++k) best = z[k] > best ? z[k] : best;
    V left = best > 0 ? V{} + A(1) : V{};  // goes to the first of equal pixels
    for (int k = 0; k < K; ++k) {
      share[k] = z[k] == best ? left : V{};
      left = z[k] == best ? V{} : left;
    }
  } else {
    const V part = V{} + A(1) / K;
    for (int k = 0; k < K; ++k) share[k] = z[k] > 0 ? part : V{};
  }
}

// The K pixels of a window in one channel vector: x - mean, and the gradient that reaches each.
template <class T, Pool P, int K, class Lane>
inline void read_window(const Image<T>& image, const T* x, const int64_t (&at)[K], int64_t c, Lane part,
                        typename Lanes<T>::Vector (&centred)[K], typename Lanes<T>::Vector (&share)[K]) {
  using A = typename Lanes<T>::Scalar;
  using V = typename Lanes<T>::Vector;
  const V scale = Lanes<A>::load(image.scale + c), shift = Lanes<A>::load(image.shift + c);
  const V mean = Lanes<A>::load(image.mean + c);
  V z[K];
  for (int k = 0; k < K; ++k) {
    centred[k] = part.load(x + at[k] + c) - mean;
    z[k] = centred[k] * scale + shift;
  }
  shares<A, P, K, V>(z, share);
}

template <class T, Pool P>
void forward(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  constexpr int K = P == Pool::none ? 1 : 4;
  using I = Image<T>;
  using V = typename I::V;
  using A = typename I::A;
  I image(call, scratch);
  const int64_t out = P == Pool::none ? image.pixels : (call.height / 2) * (call.width / 2);
  for (int64_t n = begin; n < end; ++n) {
    const T* x = static_cast<const T*>(call.x) + n * image.pixels * call.channels;
    T* y = static_cast<T*>(call.y) + n * out * call.channels;
    image.find_stats(call, x, n);
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<T>(call.channels, [&](int64_t c, auto part) {
            const V scale = Lanes<A>::load(image.scale + c), shift = Lanes<A>::load(image.shift + c);
            const V mean = Lanes<A>::load(image.mean + c);
            V value = positive((part.load(x + at[0] + c) - mean) * scale + shift);
            for (int k = 1; k < K; ++k) {
              const V z = positive((part.load(x + at[k] + c) - mean) * scale + shift);
              value = P == Pool::max ? (z > value ? z : value) : value + z;
            }
            if (P == Pool::avg) value *= A(0.25);
            part.store(y + window + c, value);
          });
        },
        [](int64_t) {});
  }
}

constexpr int64_t kFew = 64;  // windows from one flush to the next

template <class A, class V>
inline void add_to(A* sums, V value) {
  Lanes<A>::store(sums, Lanes<A>::load(sums) + value);
}

template <class T, Pool P>
void backward(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  constexpr int K = P == Pool::none ? 1 : 4;
  using I = Image<T>;
  using V = typename I::V;
  using A = typename I::A;
  using LA = Lanes<A>;
  I image(call, scratch);
  const int64_t channels = call.channels;
  const int64_t out = P == Pool::none ? image.pixels : (call.height / 2) * (call.width / 2);
  A *sum_gx = image.sum(0), *sum_g = image.sum(1), *slope = image.sum(2), *level = image.sum(3);
  A *few_gx = slope, *few_g = level;  // until the sums are known
  for (int64_t n = begin; n < end; ++n) {
    const T* x = static_cast<const T*>(call.x) + n * image.pixels * channels;
    const T* g = static_cast<const T*>(call.g) + n * out * channels;
    T* dx = static_cast<T*>(call.dx) + n * image.pixels * channels;
    image.known_stats(call, n);
    image.clear(4);
    int64_t windows = 0;
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            V centred[K], share[K];
            read_window<T, P, K>(image, x, at, c, part, centred, share);
            V total = share[0], product = share[0] * centred[0];
            for (int k = 1; k < K; ++k) {
              total += share[k];
              product += share[k] * centred[k];
            }
            const V gradient = part.load(g + window + c);
            add_to(few_g + c, gradient * total);
            add_to(few_gx + c, gradient * product);
          });
          if (++windows % kFew == 0) image.flush(2);
        },
        [](int64_t) {});
    image.flush(2);
    A* sums = static_cast<A*>(call.sums) + 2 * n * channels;
    for (int64_t c = 0; c < channels; ++c) {
      sum_gx[c] *= image.rstd[c];
      sums[c] = sum_gx[c];
      sums[channels + c] = sum_g[c];
      // dx = scale G + slope (x - mean) + level
      slope[c] = -image.scale[c] * image.rstd[c] * sum_gx[c] / A(image.pixels);
      level[c] = -image.scale[c] * sum_g[c] / A(image.pixels);
    }
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            V centred[K], share[K];
            read_window<T, P, K>(image, x, at, c, part, centred, share);
            const V gradient = LA::load(image.scale + c) * part.load(g + window + c);
            const V a = LA::load(slope + c), b = LA::load(level + c);
            for (int k = 0; k < K; ++k) {
              part.store(dx + at[k] + c, gradient * share[k] + a * centred[k] + b);
            }
          });
        },
        [&](int64_t pixel) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            const V centred = part.load(x + pixel + c) - LA::load(image.mean + c);
            part.store(dx + pixel + c, LA::load(slope + c) * centred + LA::load(level + c));
          });
        });
  }
}

template <class T, Pool P>
void double_backward(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  constexpr int K = P == Pool::none ? 1 : 4;
  using I = Image<T>;
  using V = typename I::V;
  using A = typename I::A;
  using LA = Lanes<A>;
  I image(call, scratch);
  const int64_t channels = call.channels;
  const int64_t out = P == Pool::none ? image.pixels : (call.height / 2) * (call.width / 2);
  A *mean_u = image.sum(0), *mean_ux = image.sum(1), *mean_g = image.sum(2), *mean_gx = image.sum(3), *mean_ug = image.sum(4);
  // x' = x_g G + x_u u + x_x (x - mean) + x_0 and g' = sum of shares times (scale u + g_x (x - mean) + g_0)
  A *x_g = image.sum(5), *x_u = image.sum(6), *x_x = image.sum(7), *x_0 = image.sum(8), *g_x = image.sum(9), *g_0 = image.sum(10);
  A *few_u = x_g, *few_ux = x_u, *few_g = x_x, *few_gx = x_0, *few_ug = g_x;  // until the means are known
  const A *vw = static_cast<const A*>(call.vw), *vb = static_cast<const A*>(call.vb);
  for (int64_t n = begin; n < end; ++n) {
    const T* x = static_cast<const T*>(call.x) + n * image.pixels * channels;
    const T* u = static_cast<const T*>(call.u) + n * image.pixels * channels;
    const T* g = static_cast<const T*>(call.g) + n * out * channels;
    T* to_x = static_cast<T*>(call.dx) + n * image.pixels * channels;
    T* to_g = static_cast<T*>(call.dg) + n * out * channels;
    image.known_stats(call, n);
    image.clear(10);
    int64_t windows = 0;
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            V centred[K], share[K];
            read_window<T, P, K>(image, x, at, c, part, centred, share);
            V sum_u = {}, sum_ux = {}, sum_g = {}, sum_gx = {}, sum_ug = {};
            for (int k = 0; k < K; ++k) {
              const V at_u = part.load(u + at[k] + c);
              sum_u += at_u;
              sum_ux += at_u * centred[k];
              sum_g += share[k];
              sum_gx += share[k] * centred[k];
              sum_ug += share[k] * at_u;
            }
            const V gradient = part.load(g + window + c);
            add_to(few_u + c, sum_u);
            add_to(few_ux + c, sum_ux);
            add_to(few_g + c, gradient * sum_g);
            add_to(few_gx + c, gradient * sum_gx);
            add_to(few_ug + c, gradient * sum_ug);
          });
          if (++windows % kFew == 0) image.flush(5);
        },
        [&](int64_t pixel) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            const V at_u = part.load(u + pixel + c);
            add_to(few_u + c, at_u);
            add_to(few_ux + c, at_u * (part.load(x + pixel + c) - LA::load(image.mean + c)));
          });
        });
    image.flush(5);
    A* sums = static_cast<A*>(call.sums) + n * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const A inverse = A(1) / A(image.pixels), scale = image.scale[c], rstd = image.rstd[c];
      const A mu = mean_u[c] * inverse, mg = mean_g[c] * inverse;
      const A ux = mean_ux[c] * inverse * rstd, gx = mean_gx[c] * inverse * rstd;
      const A t = mean_ug[c] * inverse - mu * mg - ux * gx;
      sums[c] = rstd * A(image.pixels) * t;
      const A to_mask = vw[c] - scale * ux;
      x_g[c] = rstd * to_mask;
      x_u[c] = -rstd * scale * gx;
      x_x[c] = -rstd * rstd * ((vw[c] - 2 * scale * ux) * gx + scale * t);
      x_0[c] = -rstd * (to_mask * mg - scale * mu * gx);
      g_x[c] = rstd * to_mask;
      g_0[c] = vb[c] - scale * mu;
    }
    for_windows<K>(
        image,
        [&](const int64_t (&at)[K], int64_t window) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            V centred[K], share[K], back = {};
            read_window<T, P, K>(image, x, at, c, part, centred, share);
            const V gradient = LA::load(x_g + c) * part.load(g + window + c);
            for (int k = 0; k < K; ++k) {
              const V at_u = part.load(u + at[k] + c);
              const V value = gradient * share[k] + LA::load(x_u + c) * at_u + LA::load(x_x + c) * centred[k];
              part.store(to_x + at[k] + c, value + LA::load(x_0 + c));
              back += share[k] * (LA::load(image.scale + c) * at_u + LA::load(g_x + c) * centred[k] + LA::load(g_0 + c));
            }
            part.store(to_g + window + c, back);
          });
        },
        [&](int64_t pixel) {
          for_lanes<T>(channels, [&](int64_t c, auto part) {
            const V at_u = part.load(u + pixel + c);
            const V centred = part.load(x + pixel + c) - LA::load(image.mean + c);
            const V value = LA::load(x_u + c) * at_u + LA::load(x_x + c) * centred + LA::load(x_0 + c);
            part.store(to_x + pixel + c, value);
          });
        });
  }
}

template <class T>
struct Forward {
  template <Pool P>
  static void run(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
    forward<T, P>(call, begin, end, scratch);
  }
};

template <class T>
struct Backward {
  template <Pool P>
  static void run(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
    backward<T, P>(call, begin, end, scratch);
  }
};

template <class T>
struct DoubleBackward {
  template <Pool P>
  static void run(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
    double_backward<T, P>(call, begin, end, scratch);
  }
};

template <class F>
void by_pool(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  switch (call.pool) {
    case Pool::avg: return F::template run<Pool::avg>(call, begin, end, scratch);
    case Pool::max: return F::template run<Pool::max>(call, begin, end, scratch);
    default: F::template run<Pool::none>(call, begin, end, scratch);
  }
}

template <template <class> class F>
void by_element(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  switch (call.element) {
    case Element::f64: return by_pool<F<double>>(call, begin, end, scratch);
    case Element::bf16: return by_pool<F<bf16>>(call, begin, end, scratch);
    default: by_pool<F<float>>(call, begin, end, scratch);
  }
}

}  // namespace

namespace FASTDD_VARIANT {

void norm_act_pool_images(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  by_element<Forward>(call, begin, end, scratch);
}

void norm_act_pool_backward_images(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  by_element<Backward>(call, begin, end, scratch);
}

void norm_act_pool_double_backward_images(const NormActPoolCall& call, int64_t begin, int64_t end, void* scratch) {
  by_element<DoubleBackward>(call, begin, end, scratch);
}

}  // namespace FASTDD_VARIANT
}  // namespace fastdd
