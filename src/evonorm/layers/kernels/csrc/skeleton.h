// The passes over memory, the same for every layer.
//
// Statistics of a sample alone: each unit is read, its statistics are completed, and it is read again from cache; one
// thread does all three steps. Statistics of the batch: all units are read, all threads meet, all are read again.
// With few samples the first kind also meets, so that every thread has work.
#pragma once

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "layout.h"
#include "rows.h"

namespace evonorm {
namespace EVONORM_ISA {

// The cut of a job into units, and of each unit into chunks.
struct Plan {
  int64_t panel, panels, units, chunks;
  int threads;
  bool meets;

  Part unit(const Job& job, int64_t index) const {
    const int64_t c0 = (index % panels) * panel;
    return {index / panels, c0, smaller(c0 + panel, job.c), 0, job.s};
  }
};

template <class L>
Plan make_plan(const Job& job, int64_t group_size, bool meets) {
  Plan plan;
  plan.panel = L::panel(job, group_size);
  plan.panels = divide_up(job.c, plan.panel);
  plan.units = job.n * plan.panels;
  plan.chunks = larger(1, L::chunks(job, plan.units, plan.panel));
  // One thread or all: libgomp ends the threads that a smaller team leaves over, and starts them again for the next.
  plan.threads = job.n * job.c * job.s < 2 * CHUNK_ELEMENTS ? 1 : (int)larger(1, job.threads);
  const bool even = plan.units % plan.threads == 0 || plan.units >= 8 * plan.threads;
  plan.meets = meets || (plan.threads > 1 && !even && plan.chunks > 1);
  return plan;
}

// first(unit, chunk), then combine(unit), then for blocks of channels between(c0, c1), then second(unit, chunk), then
// at_end(c0, c1). Each gets the number of its thread last.
template <class First_, class Combine, class Between, class Second, class AtEnd>
void run(const Job& job, const Plan& plan, First_ first, Combine combine, Between between, Second second, AtEnd at_end) {
  constexpr int64_t BLOCK = 64;
  const int64_t tasks = plan.units * plan.chunks;
#pragma omp parallel num_threads(plan.threads)
  {
    const int thread = omp_get_thread_num();
    if (!plan.meets) {
#pragma omp for schedule(static)
      for (int64_t u = 0; u < plan.units; ++u) {
        const Part unit = plan.unit(job, u);
        for (int64_t k = 0; k < plan.chunks; ++k) first(unit, u, k, thread);
        combine(unit, u, thread);
        for (int64_t k = 0; k < plan.chunks; ++k) second(unit, u, k, thread);
      }
    } else {
#pragma omp for schedule(static)
      for (int64_t t = 0; t < tasks; ++t) first(plan.unit(job, t / plan.chunks), t / plan.chunks, t % plan.chunks, thread);
#pragma omp for schedule(static)
      for (int64_t u = 0; u < plan.units; ++u) combine(plan.unit(job, u), u, thread);
#pragma omp for schedule(static)
      for (int64_t c = 0; c < job.c; c += BLOCK) between(c, smaller(c + BLOCK, job.c), thread);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < tasks; ++t) second(plan.unit(job, t / plan.chunks), t / plan.chunks, t % plan.chunks, thread);
    }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < job.c; c += BLOCK) at_end(c, smaller(c + BLOCK, job.c), thread);
  }
}

// Memory for one call; null if there is none.
struct Memory {
  float* start;
  explicit Memory(int64_t floats) {
    void* got = nullptr;
    start = posix_memalign(&got, 64, sizeof(float) * (size_t)larger(16, floats)) == 0 ? (float*)got : nullptr;
  }
  ~Memory() { free(start); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
};

// Per-channel arrays of one thread, each padded, and its stash. Zeroed once, so that lanes beyond the channels are finite.
struct Room {
  static constexpr int ARRAYS = 21;
  float *centre, *scale, *instance, *batch_std;  // see Channel
  float *alpha, *kappa, *lambda;
  float *shift, *mean, *square;
  float* k;     // coefficients, one array after the other
  float* sums;  // of a segment, likewise
  float* stash;

  static int64_t floats(int64_t ld) { return ARRAYS * ld; }

  Room(float* start, int64_t ld, float* stash_) {
    float** arrays[] = {&centre, &scale, &instance, &batch_std, &alpha, &kappa, &lambda, &shift, &mean, &square, &k};
    for (float** array : arrays) *array = start, start += ld;
    sums = k + Row::max_coefficients * ld;
    stash = stash_;
  }

  void clear_moments(const Part& part) {
    const size_t bytes = sizeof(float) * (size_t)(padded(part.c1) - part.c0);
    memset(mean + part.c0, 0, bytes), memset(square + part.c0, 0, bytes);
  }
};

// A strip of 32 rows stays a function of its own: inlined, it is unrolled altogether, which costs 6 % of a float32 layer.
#define EVONORM_APART __attribute__((noinline))

// Moments of a chunk, about a shift per channel: room.mean becomes mean - shift, room.square the sum of squared
// deviations. Each strip is summed about the mean of those before it, and merged by Chan's formula. So a mean far from
// zero costs no precision, and where that mean misses the strip's own, what cancels is no more than what their distance
// adds to the whole sum. The first strip, which has none before it, is read twice.
template <class T, class L>
void chunk_moments(const Job& job, const T* x, const Part& unit, const Part& part, Room& room) {
  for (int64_t c = part.c0; c < part.c1; ++c) room.shift[c] = to_float(x[L::first(job, unit, c)]);
  room.clear_moments(part);
  L::template to_lanes<T>(room.shift, part.c1);
  L::template strips<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_APART {
    using V = decltype(vector);
    const V shift = L::template coefficient<V>(room.shift + strip.c);
    const float count = (float)strip.positions, before = (float)(strip.s - part.s0);
    const auto old = L::template read<V>(room.mean + strip.c);
    V centre = shift + (old - V{});
    if (before == 0.0f) {
      V sums[4] = {};
      each<4>(strip, V{}, [&](int64_t at, auto lanes, auto index) {
        sums[index.value] += only(load(x + at, lanes) - shift, lanes);
      });
      centre = shift + (L::reduce((sums[0] + sums[1]) + (sums[2] + sums[3])) * (1.0f / count) - V{});
    }
    V sums[4] = {}, squares[4] = {};
    each<4>(strip, V{}, [&](int64_t at, auto lanes, auto index) {
      const V d = only(load(x + at, lanes) - centre, lanes);
      sums[index.value] += d;
      squares[index.value] = fma(d, d, squares[index.value]);
    });
    const auto sum = L::reduce((sums[0] + sums[1]) + (sums[2] + sums[3]));
    const auto mean = sum * (1.0f / count);
    const auto square = L::reduce((squares[0] + squares[1]) + (squares[2] + squares[3])) - sum * mean;
    // The centre was rounded: what it really is above the shift counts.
    const auto gap = mean + (L::one(centre - shift) - old);
    const float share = count / (before + count);
    L::write(room.mean + strip.c, old + gap * share);
    L::write(room.square + strip.c, L::template read<V>(room.square + strip.c) + square + gap * gap * (before * share));
  });
  L::template from_lanes<T>(room.mean, part.c1);
  L::template from_lanes<T>(room.square, part.c1);
}

// As chunk_moments, about zero: room.mean is 0, room.square the sum of squares.
template <class T, class L>
void chunk_squares(const Job& job, const T* x, const Part& part, Room& room) {
  for (int64_t c = part.c0; c < part.c1; ++c) room.shift[c] = 0.0f;
  room.clear_moments(part);
  L::template strips<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_APART {
    using V = decltype(vector);
    V squares[4] = {};
    each<4>(strip, V{}, [&](int64_t at, auto lanes, auto index) {
      const V value = load(x + at, lanes);
      squares[index.value] = fma(value, value, squares[index.value]);
    });
    const auto square = L::reduce((squares[0] + squares[1]) + (squares[2] + squares[3]));
    L::write(room.square + strip.c, L::template read<V>(room.square + strip.c) + square);
  });
  L::template from_lanes<T>(room.square, part.c1);
}

// Merges the chunks of a unit into mean and variance; partial: (chunks, 2, ld), as chunk_moments leaves them.
template <class R, class T, class L>
void merge_moments(const Job& job, const T* x, const Plan& plan, const Part& unit, const float* partial, int64_t ld) {
  float* stats = job.stats + unit.n * 2 * job.c;
  for (int64_t c = unit.c0; c < unit.c1; ++c) {
    double mean = partial[c], square = partial[ld + c], before = 0;
    for (int64_t k = 0; k < plan.chunks; ++k) {
      const Part part = L::chunk(unit, k, plan.chunks);
      const double count = (double)(part.s1 - part.s0);
      if (count == 0) continue;
      const double own = partial[2 * k * ld + c], gap = own - mean;
      if (before > 0) {
        square += partial[(2 * k + 1) * ld + c] + gap * gap * before * count / (before + count);
        mean += gap * count / (before + count);
      }
      before += count;
    }
    stats[c] = squares_alone<R> ? 0.0f : to_float(x[L::first(job, unit, c)]) + (float)mean;
    stats[job.c + c] = (float)(square / before);
  }
}

// Mean and biased variance over the batch, from those of the samples.
inline void batch_moments(const Job& job, int64_t c0, int64_t c1) {
  for (int64_t c = c0; c < c1; ++c) {
    double mean = 0, var = 0, between = 0;
    for (int64_t n = 0; n < job.n; ++n) mean += job.stats[n * 2 * job.c + c];
    mean /= (double)job.n;
    for (int64_t n = 0; n < job.n; ++n) {
      const double gap = job.stats[n * 2 * job.c + c] - mean;
      between += gap * gap;
      var += job.stats[(n * 2 + 1) * job.c + c];
    }
    job.batch[c] = (float)mean;
    job.batch[job.c + c] = (float)((var + between) / (double)job.n);
  }
}

// Fills what Channel has of statistics, for the channels of a unit.
template <class R>
void statistics(const Job& job, const Part& unit, Room& room) {
  const float* mean = job.stats ? job.stats + unit.n * 2 * job.c : nullptr;
  const float* var = mean + job.c;
  const float* batch_mean = job.batch;
  const float* batch_var = job.batch + job.c;
  const float eps = job.eps;
  // What the row's scale is taken of: the variance, or the mean of squares.
  const auto second = [&](int64_t c) {
    return R::centred || squares_alone<R> ? var[c] : var[c] + mean[c] * mean[c];
  };
  if (R::extent == Extent::group) {
    const int64_t size = job.c / job.groups;
    for (int64_t g = unit.c0; g < unit.c1; g += size) {
      double centre = 0, moment = 0;
      if (R::centred) {
        for (int64_t c = g; c < g + size; ++c) centre += mean[c];
        centre /= (double)size;
      }
      for (int64_t c = g; c < g + size; ++c) {
        const double gap = mean[c] - centre;
        moment += R::centred ? (double)var[c] + gap * gap : (double)second(c);
      }
      const float scale = 1.0f / sqrtf((float)(moment / (double)size) + eps);
      for (int64_t c = g; c < g + size; ++c) room.centre[c] = (float)centre, room.scale[c] = scale;
    }
  } else {
    for (int64_t c = unit.c0; c < unit.c1; ++c) {
      if (R::extent == Extent::instance) {
        room.centre[c] = 0.0f;
        room.scale[c] = 1.0f / sqrtf(second(c) + eps);
      } else if (R::extent == Extent::batch) {
        room.centre[c] = batch_mean[c];
        room.scale[c] = 1.0f / sqrtf(batch_var[c] + eps);
      } else {
        room.centre[c] = mean[c];
        room.scale[c] = 1.0f;
        room.instance[c] = sqrtf(second(c) + eps);
        room.batch_std[c] = sqrtf(batch_var[c] + eps);
      }
    }
  }
}

inline Channel channel(const Job& job, const Room& room, int64_t c) {
  return {job.weight ? job.weight[c] : 1.0f, job.bias ? job.bias[c] : 0.0f, job.extra ? job.extra[c] : 0.0f,
          room.centre[c], room.scale[c], room.instance[c], room.batch_std[c]};
}

// Coefficients for the channels of a part, by R::forward or R::backward, in the order of lanes.
template <class T, class L, class Make>
void coefficients(const Job& job, const Part& part, Room& room, int64_t ld, int count, Make make) {
  for (int64_t c = part.c0; c < part.c1; ++c) {
    float k[Row::max_coefficients];
    make(channel(job, room, c), k);
    for (int i = 0; i < count; ++i) room.k[i * ld + c] = k[i];
  }
  for (int i = 0; i < count; ++i) L::template to_lanes<T>(room.k + i * ld, part.c1);
}

template <class R>
constexpr bool of_batch = R::extent == Extent::batch || R::extent == Extent::mixed;
// Statistics per sample are needed (BatchNorm needs them only on the way to the batch's).
template <class R>
constexpr bool of_sample = R::extent != Extent::batch;

template <class R>
int64_t group_size(const Job& job) {
  return R::extent == Extent::group ? job.c / job.groups : 1;
}

template <class R, class T, class L>
int forward_passes(const Forward& given) {
  Forward job = given;
  const T* x = (const T*)job.x;
  T* y = (T*)job.y;
  const int64_t ld = padded(job.c);
  const bool takes_batch = of_batch<R> && !job.given_batch;
  const bool takes_moments = of_sample<R> || takes_batch;
  const Plan plan = make_plan<L>(job, group_size<R>(job), takes_batch);
  const int64_t partial_floats = plan.units * plan.chunks * 2 * ld;
  const int64_t rooms = plan.threads * Room::floats(ld);
  const int64_t own_stats = job.stats == nullptr && takes_moments ? job.n * 2 * job.c : 0;
  Memory memory(rooms + own_stats + (takes_moments && !L::splits_channels ? partial_floats : 0));
  if (!memory.start) return OUT_OF_MEMORY;
  memset(memory.start, 0, sizeof(float) * (size_t)rooms);
  if (own_stats) job.stats = memory.start + rooms;
  float* partials = memory.start + rooms + own_stats;
  const auto room_of = [&](int thread) { return Room(memory.start + thread * Room::floats(ld), ld, nullptr); };

  run(
      job, plan,
      [&](const Part& unit, int64_t u, int64_t k, int thread) {
        if (!takes_moments) return;
        Room room = room_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (squares_alone<R>)
          chunk_squares<T, L>(job, x, part, room);
        else
          chunk_moments<T, L>(job, x, unit, part, room);
        if (L::splits_channels) {
          float* stats = job.stats + part.n * 2 * job.c;
          for (int64_t c = part.c0; c < part.c1; ++c) {
            stats[c] = room.shift[c] + room.mean[c];
            stats[job.c + c] = room.square[c] / (float)job.s;
          }
        } else {
          float* partial = partials + (u * plan.chunks + k) * 2 * ld;
          memcpy(partial, room.mean, sizeof(float) * (size_t)ld);
          memcpy(partial + ld, room.square, sizeof(float) * (size_t)ld);
        }
      },
      [&](const Part& unit, int64_t u, int) {
        if (takes_moments && !L::splits_channels)
          merge_moments<R, T, L>(job, x, plan, unit, partials + u * plan.chunks * 2 * ld, ld);
      },
      [&](int64_t c0, int64_t c1, int) {
        if (takes_batch) batch_moments(job, c0, c1);
      },
      [&](const Part& unit, int64_t, int64_t k, int thread) {
        if (!y) return;
        Room room = room_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        statistics<R>(job, unit, room);
        coefficients<T, L>(job, part, room, ld, R::forward_coefficients, R::forward);
        L::template in_order<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_INLINE {
          using V = decltype(vector);
          V c[Row::max_coefficients];
          for (int i = 0; i < R::forward_coefficients; ++i) c[i] = L::template coefficient<V>(room.k + i * ld + strip.c);
          each<1>(strip, V{}, [&](int64_t at, auto lanes, auto) {
            store(y + at, R::value(load(x + at, lanes), c), lanes);
          });
        });
      },
      [](int64_t, int64_t, int) {});
  return DONE;
}

// What flows back through the statistics: dx = alpha * h + kappa * (x - centre) + lambda.
template <class R>
void feedback(const Backward& job, const Part& unit, const float* sums, int64_t ld, Room& room) {
  const auto weight = [&](int64_t c) { return job.weight ? (double)job.weight[c] : 1.0; };
  const bool through_batch = of_batch<R> && job.batch_count > 0;
  const double count = job.batch_count;
  if (R::extent == Extent::group || R::extent == Extent::instance) {
    const int64_t size = group_size<R>(job);
    for (int64_t g = unit.c0; g < unit.c1; g += size) {
      double by_scale = 0, by_centre = 0;
      for (int64_t c = g; c < g + size; ++c) {
        by_scale += weight(c) * sums[ld + c];
        by_centre += weight(c) * sums[c];
      }
      const double scale = room.scale[g], values = (double)(size * job.s);
      for (int64_t c = g; c < g + size; ++c) {
        room.alpha[c] = (float)(weight(c) * scale);
        room.kappa[c] = (float)(-by_scale * scale * scale * scale / values);
        room.lambda[c] = R::subtracts ? (float)(-by_centre * scale / values) : 0.0f;
      }
    }
    return;
  }
  for (int64_t c = unit.c0; c < unit.c1; ++c) {
    const double w = weight(c), scale = room.scale[c];
    double kappa = 0, lambda = 0;
    if (R::extent == Extent::batch) {
      if (through_batch) {
        kappa = -w * job.totals[job.c + c] * scale * scale * scale / count;
        lambda = -w * job.totals[c] * scale / count;
      }
    } else {
      const double by_instance = -w * sums[(R::sums - 2) * ld + c] / ((double)job.s * room.instance[c]);
      kappa = by_instance;
      if (!R::centred) lambda = by_instance * room.centre[c];
      if (through_batch) {
        const double by_batch = -w * job.totals[job.c + c] / (count * room.batch_std[c]);
        kappa += by_batch;
        lambda += by_batch * ((double)room.centre[c] - job.batch[c]);
      }
    }
    room.alpha[c] = (float)(w * scale);
    room.kappa[c] = (float)kappa;
    room.lambda[c] = (float)lambda;
  }
}

// What the batch's moments need of all samples: (2, c).
template <class R>
void batch_totals(const Backward& job, const float* sums, int64_t ld, int64_t c0, int64_t c1) {
  constexpr int first = R::extent == Extent::batch ? 0 : R::sums - 2;
  for (int64_t c = c0; c < c1; ++c) {
    double totals[2] = {};
    for (int64_t n = 0; n < job.n; ++n)
      for (int i = 0; i < 2; ++i) totals[i] += sums[(n * R::sums + first + i) * ld + c];
    for (int i = 0; i < 2; ++i) job.totals[i * job.c + c] = (float)totals[i];
  }
}

template <class T>
float* as_floats(T*) { return nullptr; }
inline float* as_floats(float* dx) { return dx; }

template <class R, class T, class L>
int backward_passes(const Backward& given) {
  Backward job = given;
  const T *x = (const T*)job.x, *dy = (const T*)job.dy;
  T* dx = (T*)job.dx;
  constexpr int J = R::sums;
  const int64_t ld = padded(job.c);
  const bool through_batch = of_batch<R> && job.batch_count > 0;
  const bool reduces = job.phases & REDUCE, applies = job.phases & APPLY;
  const Plan plan = make_plan<L>(job, group_size<R>(job), through_batch || !reduces || !applies);
  // h is kept where it is dear: in dx itself if that is float32, else in the thread's stash while the unit is in cache.
  const bool in_dx = R::stash && sizeof(T) == sizeof(float);
  const bool in_stash = R::stash && !in_dx && !plan.meets;
  const int64_t stash_floats = in_stash ? divide_up(plan.panel * job.s, 16) * 16 : 0;

  const int64_t rooms = plan.threads * Room::floats(ld);
  const int64_t own_sums = job.sums ? 0 : job.n * J * ld;
  const bool merges = reduces && !L::splits_channels && plan.chunks > 1;
  const int64_t scales = job.n * 2 * ld;  // factors of the gradients of weight and extra, per sample
  Memory memory(rooms + own_sums + scales + (merges ? plan.units * plan.chunks * J * ld : 0) + plan.threads * stash_floats +
                2 * job.c);
  if (!memory.start) return OUT_OF_MEMORY;
  memset(memory.start, 0, sizeof(float) * (size_t)rooms);
  float* next = memory.start + rooms;
  float* stashes = next;
  next += plan.threads * stash_floats;
  float* factors = next;
  next += scales;
  if (own_sums) job.sums = next, next += own_sums;
  if (!job.totals) job.totals = next;
  next += 2 * job.c;
  float* partials = next;
  const auto room_of = [&](int thread) {
    return Room(memory.start + thread * Room::floats(ld), ld, stashes + thread * stash_floats);
  };
  const auto sums_of = [&](int64_t n) { return job.sums + n * J * ld; };

  run(
      job, plan,
      [&](const Part& unit, int64_t u, int64_t k, int thread) {
        if (!reduces) return;
        Room room = room_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        float* to = merges ? partials + (u * plan.chunks + k) * J * ld : sums_of(unit.n);
        statistics<R>(job, unit, room);
        coefficients<T, L>(job, part, room, ld, R::backward_coefficients, R::backward);
        float* kept = in_dx ? as_floats(dx) : room.stash;
        const int64_t base = in_dx ? 0 : L::first(job, unit, unit.c0);
        const bool keeps = in_dx || in_stash;
        const size_t bytes = sizeof(float) * (size_t)(padded(part.c1) - part.c0);
        for (int64_t segment = 0; segment < L::segments(part); ++segment) {
          for (int j = 0; j < J; ++j) memset(room.sums + j * ld + part.c0, 0, bytes);
          L::template in_order<T>(job, L::segment(part, segment), [&](const Strip& strip, auto vector) EVONORM_INLINE {
            using V = decltype(vector);
            V c[Row::max_coefficients], sums[J] = {};
            for (int i = 0; i < R::backward_coefficients; ++i) c[i] = L::template coefficient<V>(room.k + i * ld + strip.c);
            each<1>(strip, V{}, [&](int64_t at, auto lanes, auto) {
              const V h = R::slope(load(x + at, lanes), load(dy + at, lanes), c, sums);
              if (R::stash && keeps) store(kept + (at - base), h, lanes);
            });
            for (int j = 0; j < J; ++j) {
              float* sum = room.sums + j * ld + strip.c;
              L::write(sum, L::template read<V>(sum) + L::reduce(sums[j]));
            }
          });
          for (int j = 0; j < J; ++j) {
            L::template from_lanes<T>(room.sums + j * ld, part.c1);
            for (int64_t c = j * ld + part.c0; c < j * ld + part.c1; ++c)
              to[c] = segment ? to[c] + room.sums[c] : room.sums[c];
          }
        }
      },
      [&](const Part& unit, int64_t u, int thread) {
        if (!reduces) return;
        float* sums = sums_of(unit.n);
        if (merges) {
          const float* partial = partials + u * plan.chunks * J * ld;
          for (int j = 0; j < J; ++j) {
            for (int64_t i = j * ld; i < j * ld + job.c; ++i) {
              float sum = partial[i];
              for (int64_t k = 1; k < plan.chunks; ++k) sum += partial[k * J * ld + i];
              sums[i] = sum;
            }
          }
        }
        Room room = room_of(thread);
        statistics<R>(job, unit, room);
        float* factor = factors + unit.n * 2 * ld;
        for (int64_t c = unit.c0; c < unit.c1; ++c) {
          factor[c] = room.scale[c];
          factor[ld + c] = R::extra_factor(channel(job, room, c));
        }
      },
      [&](int64_t c0, int64_t c1, int) {
        if (through_batch && reduces) batch_totals<R>(job, job.sums, ld, c0, c1);
      },
      [&](const Part& unit, int64_t, int64_t k, int thread) {
        if (!applies) return;
        Room room = room_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        statistics<R>(job, unit, room);
        feedback<R>(job, unit, sums_of(unit.n), ld, room);
        const bool again = !(in_dx || in_stash);
        if (again) coefficients<T, L>(job, part, room, ld, R::backward_coefficients, R::backward);
        float* arrays[] = {room.alpha, room.kappa, room.lambda, room.centre};
        for (float* array : arrays) L::template to_lanes<T>(array, part.c1);
        const auto finish = [&](const Strip& strip, auto vector, auto h_at) EVONORM_INLINE {
          using V = decltype(vector);
          const auto at_strip = [&](const float* array) { return L::template coefficient<V>(array + strip.c); };
          const V alpha = at_strip(room.alpha), kappa = at_strip(room.kappa);
          const V centre = at_strip(room.centre), lambda = at_strip(room.lambda);
          each<1>(strip, V{}, [&](int64_t at, auto lanes, auto) {
            const V from_centre = load(x + at, lanes) - centre;
            store(dx + at, fma(alpha, h_at(at, lanes), fma(kappa, from_centre, lambda)), lanes);
          });
        };
        if (!again) {
          const float* kept = in_dx ? as_floats(dx) : room.stash;
          const int64_t base = in_dx ? 0 : L::first(job, unit, unit.c0);
          L::template in_order<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_INLINE {
            finish(strip, vector, [&](int64_t at, auto lanes) { return load(kept + (at - base), lanes); });
          });
          return;
        }
        L::template in_order<T>(job, part, [&](const Strip& strip, auto vector) EVONORM_INLINE {
          using V = decltype(vector);
          V c[Row::max_coefficients], unused[J] = {};
          for (int i = 0; i < R::backward_coefficients; ++i) c[i] = L::template coefficient<V>(room.k + i * ld + strip.c);
          finish(strip, vector, [&](int64_t at, auto lanes) {
            return R::slope(load(x + at, lanes), load(dy + at, lanes), c, unused);
          });
        });
      },
      [&](int64_t c0, int64_t c1, int) {
        if (!reduces) return;
        for (int64_t c = c0; c < c1; ++c) {
          double bias = 0, weight = 0, extra = 0;
          for (int64_t n = 0; n < job.n; ++n) {
            const float* sums = sums_of(n) + c;
            const float* factor = factors + n * 2 * ld + c;
            bias += sums[0];
            weight += (double)factor[0] * sums[ld];
            if (J == 3 || J == 5) extra += (double)factor[ld] * sums[2 * ld];
          }
          if (job.dbias) job.dbias[c] = (float)bias;
          if (job.dweight) job.dweight[c] = (float)weight;
          if (job.dextra) job.dextra[c] = (float)extra;
        }
      });
  return DONE;
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
