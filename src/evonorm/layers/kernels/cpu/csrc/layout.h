// How a sample lies in memory, and how it is cut into pieces of work: the only place that knows.
//
// A unit is what has statistics of its own: a sample, or in contiguous layout a panel of whole groups of one. A chunk is
// a part of a unit for one thread; a strip is a run of vectors that share their coefficients. The cut depends on sizes
// alone, never on the number of threads, so that sums are always taken in the same order.
#pragma once

#include "job.h"
#include "lanes.h"

namespace evonorm {
namespace EVONORM_ISA {

constexpr int64_t STRIP_VECTORS = 32;     // summed in float32 before they join a longer sum
constexpr int64_t CHUNK_ELEMENTS = 16384; // below this a thread is not worth its start
constexpr int64_t WANTED_TASKS = 64;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Per-channel arrays have room for whole vectors of any variant: for pairs too, which more than half fill theirs.
inline int64_t padded(int64_t channels) { return divide_up(channels, 16) * 16; }

// Positions [s0, s1) of channels [c0, c1) of sample n.
struct Part {
  int64_t n, c0, c1, s0, s1;
};

// Vectors at offset, offset + stride, ...: `full` of them whole, or then `partial` with the first `lanes` in memory.
struct Strip {
  int64_t c, s;  // first channel and position
  int64_t offset, stride;
  int full, partial, lanes;
  int positions;  // how many positions of each channel it holds
};

template <int I>
struct Index {
  static constexpr int value = I;
};

// body(offset, lanes, index) for each vector; index counts 0..UNROLL-1 in turn, for sums that do not wait for each other.
template <int UNROLL, class V, class Body>
EVONORM_INLINE inline void each(const Strip& strip, V, const Body& body) {
  int64_t at = strip.offset;
  const int64_t step = strip.stride;
  int i = 0;
  if (UNROLL == 4) {
    for (; i + 4 <= strip.full; i += 4, at += 4 * step) {
      body(at, All<V>{}, Index<0>{});
      body(at + step, All<V>{}, Index<UNROLL == 4 ? 1 : 0>{});
      body(at + 2 * step, All<V>{}, Index<UNROLL == 4 ? 2 : 0>{});
      body(at + 3 * step, All<V>{}, Index<UNROLL == 4 ? 3 : 0>{});
    }
  }
  for (; i < strip.full; ++i, at += step) body(at, All<V>{}, Index<0>{});
  for (i = 0; i < strip.partial; ++i, at += step) body(at, First<V>{strip.lanes}, Index<0>{});
}

// (n, s, c): a vector holds neighbouring channels of one position. A chunk is some positions of all channels.
struct ChannelsLast {
  static constexpr bool splits_channels = false;

  // What a strip has of each sum: one value a channel.
  template <class V>
  static V reduce(V sum) { return sum; }
  // Of a value that is the same in all lanes of a channel.
  template <class V>
  static V one(V value) { return value; }
  template <class V>
  static V coefficient(const float* k) { return load(k, All<V>{}); }
  template <class V>
  static V read(const float* from) { return load(from, All<V>{}); }
  template <class V>
  static void write(float* to, V value) { store(to, value, All<V>{}); }

  // Channels up to this one are taken by whole vectors V, the last of which may be less than full; the others by F.
  template <class V>
  static int64_t by(int64_t channels) {
    const int64_t rest = channels % width<V>;
    return width<V> == WIDTH ? channels : channels - rest + (rest > WIDTH ? width<V> : 0);
  }

  // Puts a per-channel array into the order in which lanes hold the channels, while strips read and write it.
  template <class T>
  static void to_lanes(float* k, int64_t channels) {
    using V = typename Widest<T>::V;
    if (width<V> == WIDTH) return;
    for (float* end = k + by<V>(channels); k < end; k += 2 * WIDTH) {
      float lanes[2 * WIDTH];
      for (int i = 0; i < WIDTH; ++i) lanes[i] = k[2 * i], lanes[WIDTH + i] = k[2 * i + 1];
      memcpy(k, lanes, sizeof lanes);
    }
  }

  // And back.
  template <class T>
  static void from_lanes(float* k, int64_t channels) {
    using V = typename Widest<T>::V;
    if (width<V> == WIDTH) return;
    for (float* end = k + by<V>(channels); k < end; k += 2 * WIDTH) {
      float order[2 * WIDTH];
      for (int i = 0; i < WIDTH; ++i) order[2 * i] = k[i], order[2 * i + 1] = k[WIDTH + i];
      memcpy(k, order, sizeof order);
    }
  }

  static int64_t panel(const Job& job, int64_t) { return job.c; }

  static int64_t chunks(const Job& job, int64_t units, int64_t) {
    const int64_t wanted = larger(1, WANTED_TASKS / units);
    const int64_t worth = smaller(wanted, divide_up(job.s * job.c, CHUNK_ELEMENTS));
    return divide_up(job.s, rows(job.s, worth));  // none of them is empty
  }

  static Part chunk(const Part& unit, int64_t index, int64_t count) {
    const int64_t each = rows(unit.s1, count);
    return {unit.n, unit.c0, unit.c1, index * each, smaller((index + 1) * each, unit.s1)};
  }

  // Positions of each of `count` chunks but the last: whole strips.
  static int64_t rows(int64_t positions, int64_t count) {
    return divide_up(divide_up(positions, count), STRIP_VECTORS) * STRIP_VECTORS;
  }

  // Vectors V from channel c to channel end.
  template <class V, class Body>
  EVONORM_INLINE static void blocks_by(int64_t channels, int64_t c, int64_t end, int64_t s, int rows, int64_t row,
                                       const Body& body) {
    const int64_t whole = smaller(end, channels) - width<V>;
    for (; c <= whole; c += width<V>) body(Strip{c, s, row + c, channels, rows, 0, 0, rows}, V{});
    if (c < end) body(Strip{c, s, row + c, channels, 0, rows, (int)(channels - c), rows}, V{});
  }

  template <class T, int64_t ROWS, class Body>
  static void blocks(const Job& job, const Part& part, const Body& body) {
    using V = typename Widest<T>::V;
    const int64_t base = part.n * job.s * job.c, split = by<V>(job.c);
    for (int64_t s = part.s0; s < part.s1; s += ROWS) {
      const int rows = (int)smaller(ROWS, part.s1 - s);
      const int64_t row = base + s * job.c;
      blocks_by<V>(job.c, 0, split, s, rows, row, body);
      if (width<V> > WIDTH && split < job.c) blocks_by<F>(job.c, split, job.c, s, rows, row, body);
    }
  }

  // body(strip, vector), the second to say by its type which vectors the strip is to be taken by.
  template <class T, class Body>
  static void strips(const Job& job, const Part& part, const Body& body) {
    blocks<T, STRIP_VECTORS>(job, part, body);
  }

  // Sums are taken in three steps, strip, segment and part, so that their rounding grows slowly.
  static int64_t segments(const Part& part) { return divide_up(part.s1 - part.s0, 4 * STRIP_VECTORS); }

  static Part segment(const Part& part, int64_t index) {
    const int64_t from = part.s0 + index * 4 * STRIP_VECTORS;
    return {part.n, part.c0, part.c1, from, smaller(from + 4 * STRIP_VECTORS, part.s1)};
  }

  // As strips, a few positions at a time, which is nearly the order of memory: for passes over more than one tensor.
  template <class T, class Body>
  static void in_order(const Job& job, const Part& part, const Body& body) {
    blocks<T, 4>(job, part, body);
  }

  static int64_t first(const Job& job, const Part& part, int64_t c) { return part.n * job.s * job.c + c; }
};

// (n, c, s): a vector holds neighbouring positions of one channel. A chunk is some channels of the panel.
struct Contiguous {
  static constexpr bool splits_channels = true;

  template <class V>
  static float reduce(V sum) { return sum_lanes(sum); }
  template <class V>
  static float one(V value) { return first_lane(value); }
  template <class V>
  static V coefficient(const float* k) { return splat<V>(*k); }
  template <class V>
  static float read(const float* from) { return *from; }
  static void write(float* to, float value) { *to = value; }
  template <class T>
  static void to_lanes(float*, int64_t) {}
  template <class T>
  static void from_lanes(float*, int64_t) {}

  static int64_t panel(const Job& job, int64_t group_size) {
    const int64_t groups = larger(1, CHUNK_ELEMENTS / larger(1, group_size * job.s));
    return smaller(job.c, groups * group_size);
  }

  static int64_t chunks(const Job& job, int64_t units, int64_t panel) {
    const int64_t wanted = larger(1, WANTED_TASKS / units);
    return smaller(smaller(wanted, divide_up(job.s * panel, CHUNK_ELEMENTS)), panel);
  }

  static Part chunk(const Part& unit, int64_t index, int64_t count) {
    const int64_t each = divide_up(unit.c1 - unit.c0, count);
    const int64_t from = smaller(unit.c0 + index * each, unit.c1);
    return {unit.n, from, smaller(from + each, unit.c1), unit.s0, unit.s1};
  }

  template <class T, class Body>
  static void strips(const Job& job, const Part& part, const Body& body) {
    using V = typename Widest<T>::V;
    constexpr int64_t LENGTH = STRIP_VECTORS * width<V>;
    for (int64_t c = part.c0; c < part.c1; ++c) {
      const int64_t base = (part.n * job.c + c) * job.s;
      for (int64_t s = part.s0; s < part.s1; s += LENGTH) {
        const int length = (int)smaller(LENGTH, part.s1 - s);
        const int rest = length % width<V>;
        body(Strip{c, s, base + s, width<V>, length / width<V>, rest != 0, rest, length}, V{});
      }
    }
  }

  static int64_t segments(const Part&) { return 1; }
  static Part segment(const Part& part, int64_t) { return part; }

  template <class T, class Body>
  static void in_order(const Job& job, const Part& part, const Body& body) {
    strips<T>(job, part, body);
  }

  static int64_t first(const Job& job, const Part& part, int64_t c) { return (part.n * job.c + c) * job.s; }
};

}  // namespace EVONORM_ISA
}  // namespace evonorm
