// Compiled once per instruction set (FASTDD_VARIANT), see segment_mean_cpu.cpp. Formulas: fastdd/reference/norm_act_pool.py.
//
// One image at a time: its activations are read from memory once, for the statistics, and again from cache.
#include "norm_act_pool_cpu.h"

#include "norm_act_pool_image.h"

namespace fastdd {
namespace {

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
