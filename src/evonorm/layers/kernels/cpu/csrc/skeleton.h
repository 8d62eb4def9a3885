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

  // Where threads do not meet, one does all chunks of a unit in turn, and what it has in its room for the first of them,
  // for all of the unit's channels, serves the others and the second pass too.
  bool begins(int64_t chunk) const { return meets || chunk == 0; }
  Part prepares(const Part& unit, const Part& part) const { return meets ? part : unit; }
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

// Loops over samples or chunks go by blocks of channels, so that their inner loop runs along memory.
constexpr int64_t BLOCK = 64;

template <class Body>
void by_blocks(int64_t c0, int64_t c1, const Body& body) {
  for (; c0 < c1; c0 += BLOCK) body(c0, smaller(BLOCK, c1 - c0));
}

// first(unit, chunk), then combine(unit), then for blocks of channels between(c0, c1), then second(unit, chunk), then
// at_end(c0, c1). Each gets the number of its thread last.
template <class First_, class Combine, class Between, class Second, class AtEnd>
void run(const Job& job, const Plan& plan, First_ first, Combine combine, Between between, Second second, AtEnd at_end) {
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
  by_blocks(unit.c0, unit.c1, [&](int64_t c0, int64_t channels) {
    double mean[BLOCK], square[BLOCK], before = 0;
    for (int64_t k = 0; k < plan.chunks; ++k) {
      const Part part = L::chunk(unit, k, plan.chunks);
      const double count = (double)(part.s1 - part.s0);
      if (count == 0) continue;
      const float* means = partial + 2 * k * ld + c0;
      const float* squares = means + ld;
      const bool first = before == 0;
#pragma omp simd
      for (int64_t i = 0; i < channels; ++i) {
        const double gap = means[i] - (first ? 0.0 : mean[i]);
        square[i] = first ? squares[i] : square[i] + (squares[i] + gap * gap * before * count / (before + count));
        mean[i] = first ? means[i] : mean[i] + gap * count / (before + count);
      }
      before += count;
    }
    const T* origin = x + L::first(job, unit, c0);
    for (int64_t i = 0; i < channels; ++i) {
      stats[c0 + i] = squares_alone<R> ? 0.0f : to_float(origin[i]) + (float)mean[i];
      stats[job.c + c0 + i] = (float)(square[i] / before);
    }
  });
}

// Mean and biased variance over the batch, from those of the samples.
inline void batch_moments(const Job& job, int64_t c0, int64_t c1) {
  by_blocks(c0, c1, [&](int64_t from, int64_t channels) {
    double mean[BLOCK] = {}, var[BLOCK] = {}, between[BLOCK] = {};
    for (int64_t n = 0; n < job.n; ++n) {
      const float* means = job.stats + n * 2 * job.c + from;
#pragma omp simd
      for (int64_t i = 0; i < channels; ++i) mean[i] += means[i];
    }
    for (int64_t i = 0; i < channels; ++i) mean[i] /= (double)job.n;
    for (int64_t n = 0; n < job.n; ++n) {
      const float* means = job.stats + n * 2 * job.c + from;
      const float* vars = means + job.c;
#pragma omp simd
      for (int64_t i = 0; i < channels; ++i) {
        const double gap = means[i] - mean[i];
        between[i] += gap * gap;
        var[i] += vars[i];
      }
    }
    for (int64_t i = 0; i < channels; ++i) {
      job.batch[from + i] = (float)mean[i];
      job.batch[job.c + from + i] = (float)((var[i] + between[i]) / (double)job.n);
    }
  });
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
#pragma omp simd
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
  return {job.weight[c],  job.bias[c],      job.extra[c],     room.centre[c],
          room.scale[c], room.instance[c], room.batch_std[c]};
}

// weight, bias and extra at every channel, what is not given as it counts. to: (3, ld).
inline void give_parameters(Job& job, float* to, int64_t ld) {
  const float** given[] = {&job.weight, &job.bias, &job.extra};
  for (int i = 0; i < 3; ++i, to += ld) {
    for (int64_t c = 0; c < job.c; ++c) to[c] = *given[i] ? (*given[i])[c] : i == 0 ? 1.0f : 0.0f;
    *given[i] = to;
  }
}

// COUNT coefficients for the channels of a part, by R::forward or R::backward, in the order of lanes.
template <int COUNT, class T, class L, class Make>
void coefficients(const Job& job, const Part& part, Room& room, int64_t ld, const Make& make) {
#pragma omp simd
  for (int64_t c = part.c0; c < part.c1; ++c) {
    float k[Row::max_coefficients];
    make(channel(job, room, c), k);
    for (int i = 0; i < COUNT; ++i) room.k[i * ld + c] = k[i];
  }
  for (int i = 0; i < COUNT; ++i) L::template to_lanes<T>(room.k + i * ld, part.c1);
}

template <class R>
constexpr bool of_batch = R::extent == Extent::batch || R::extent == Extent::mixed;
// Statistics per sample are needed (BatchNorm needs them only on the way to the batch's).
template <class R>
constexpr bool of_sample = R::extent != Extent::batch;

// What coefficients<> makes; lambdas, so that they are inlined.
template <class R>
constexpr auto forward_of = [](const Channel& q, float* k) { R::forward(q, k); };
template <class R>
constexpr auto backward_of = [](const Channel& q, float* k) { R::backward(q, k); };

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
  Memory memory(rooms + 3 * ld + own_stats + (takes_moments && !L::splits_channels ? partial_floats : 0));
  if (!memory.start) return OUT_OF_MEMORY;
  memset(memory.start, 0, sizeof(float) * (size_t)rooms);
  give_parameters(job, memory.start + rooms, ld);
  if (own_stats) job.stats = memory.start + rooms + 3 * ld;
  float* partials = memory.start + rooms + 3 * ld + own_stats;
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
        if (plan.begins(k)) {
          statistics<R>(job, unit, room);
          coefficients<R::forward_coefficients, T, L>(job, plan.prepares(unit, part), room, ld, forward_of<R>);
        }
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
  const float* weight = job.weight;
  const bool through_batch = of_batch<R> && job.batch_count > 0;
  const double count = job.batch_count;
  if (R::extent == Extent::group || R::extent == Extent::instance) {
    const int64_t size = group_size<R>(job);
    for (int64_t g = unit.c0; g < unit.c1; g += size) {
      double by_scale = 0, by_centre = 0;
      for (int64_t c = g; c < g + size; ++c) {
        by_scale += (double)weight[c] * sums[ld + c];
        by_centre += (double)weight[c] * sums[c];
      }
      const double scale = room.scale[g], values = (double)(size * job.s);
      for (int64_t c = g; c < g + size; ++c) {
        room.alpha[c] = (float)((double)weight[c] * scale);
        room.kappa[c] = (float)(-by_scale * scale * scale * scale / values);
        room.lambda[c] = R::subtracts ? (float)(-by_centre * scale / values) : 0.0f;
      }
    }
    return;
  }
#pragma omp simd
  for (int64_t c = unit.c0; c < unit.c1; ++c) {
    const double w = weight[c], scale = room.scale[c];
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
  by_blocks(c0, c1, [&](int64_t from, int64_t channels) {
    for (int which = 0; which < 2; ++which) {
      double total[BLOCK] = {};
      for (int64_t n = 0; n < job.n; ++n) {
        const float* sum = sums + (n * R::sums + first + which) * ld + from;
#pragma omp simd
        for (int64_t i = 0; i < channels; ++i) total[i] += sum[i];
      }
      for (int64_t i = 0; i < channels; ++i) job.totals[which * job.c + from + i] = (float)total[i];
    }
  });
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
  // Factors of the gradients of weight and extra: of each sample, or the same for all.
  constexpr bool own_factors = R::extent == Extent::group || R::extent == Extent::instance;
  const int64_t factor_floats = (own_factors ? job.n : 1) * 2 * ld;
  Memory memory(rooms + 3 * ld + own_sums + factor_floats + (merges ? plan.units * plan.chunks * J * ld : 0) + plan.threads * stash_floats +
                2 * job.c);
  if (!memory.start) return OUT_OF_MEMORY;
  memset(memory.start, 0, sizeof(float) * (size_t)rooms);
  float* next = memory.start + rooms;
  give_parameters(job, next, ld);
  next += 3 * ld;
  float* stashes = next;
  next += plan.threads * stash_floats;
  float* factors = next;
  next += factor_floats;
  if (own_sums) job.sums = next, next += own_sums;
  if (!job.totals) job.totals = next;
  next += 2 * job.c;
  float* partials = next;
  const auto room_of = [&](int thread) {
    return Room(memory.start + thread * Room::floats(ld), ld, stashes + thread * stash_floats);
  };
  const auto sums_of = [&](int64_t n) { return job.sums + n * J * ld; };
  const auto factors_of = [&](int64_t n) { return factors + (own_factors ? n * 2 * ld : 0); };
  const auto take_factors = [&](const Part& unit, const Room& room) {
    float* factor = factors_of(unit.n);
#pragma omp simd
    for (int64_t c = unit.c0; c < unit.c1; ++c) {
      factor[c] = room.scale[c];
      factor[ld + c] = R::extra_factor(channel(job, room, c));
    }
  };
  if (!own_factors && reduces && job.n > 0) {
    const Part all = {0, 0, job.c, 0, job.s};
    Room room = room_of(0);
    statistics<R>(job, all, room);
    take_factors(all, room);
  }

  run(
      job, plan,
      [&](const Part& unit, int64_t u, int64_t k, int thread) {
        if (!reduces) return;
        Room room = room_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        float* to = merges ? partials + (u * plan.chunks + k) * J * ld : sums_of(unit.n);
        if (plan.begins(k)) {
          statistics<R>(job, unit, room);
          coefficients<R::backward_coefficients, T, L>(job, plan.prepares(unit, part), room, ld, backward_of<R>);
        }
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
        if (!own_factors) return;
        Room room = room_of(thread);
        if (plan.meets) statistics<R>(job, unit, room);
        take_factors(unit, room);
      },
      [&](int64_t c0, int64_t c1, int) {
        if (through_batch && reduces) batch_totals<R>(job, job.sums, ld, c0, c1);
      },
      [&](const Part& unit, int64_t, int64_t k, int thread) {
        if (!applies) return;
        Room room = room_of(thread);
        const Part part = L::chunk(unit, k, plan.chunks);
        if (part.c0 == part.c1) return;
        const bool again = !(in_dx || in_stash);
        if (plan.meets) {
          statistics<R>(job, unit, room);
          if (again) coefficients<R::backward_coefficients, T, L>(job, part, room, ld, backward_of<R>);
        }
        if (plan.begins(k)) {
          feedback<R>(job, unit, sums_of(unit.n), ld, room);
          float* arrays[] = {room.alpha, room.kappa, room.lambda, room.centre};
          for (float* array : arrays) L::template to_lanes<T>(array, part.c1);
        }
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
        by_blocks(c0, c1, [&](int64_t from, int64_t channels) {
          double bias[BLOCK] = {}, weight[BLOCK] = {}, extra[BLOCK] = {};
          for (int64_t n = 0; n < job.n; ++n) {
            const float* sums = sums_of(n) + from;
            const float* factor = factors_of(n) + from;
#pragma omp simd
            for (int64_t i = 0; i < channels; ++i) {
              bias[i] += sums[i];
              weight[i] += (double)factor[i] * sums[ld + i];
              if (J == 3 || J == 5) extra[i] += (double)factor[ld + i] * sums[2 * ld + i];
            }
          }
          for (int64_t i = 0; i < channels; ++i) {
            if (job.dbias) job.dbias[from + i] = (float)bias[i];
            if (job.dweight) job.dweight[from + i] = (float)weight[i];
            if (job.dextra) job.dextra[from + i] = (float)extra[i];
          }
        });
      });
  return DONE;
}

}  // namespace EVONORM_ISA
}  // namespace evonorm
