// How a job is cut into units and chunks, and in which order threads pass over them and meet.
//
// Statistics of a sample alone: each unit is read, its statistics are completed, and it is read again from cache; one
// thread does all three steps. Statistics of the batch: all units are read, all threads meet, all are read again.
// With few samples the first kind also meets, so that every thread has work.
#pragma once

#include <omp.h>

#include "layout.h"

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

  // Where threads do not meet, one does all chunks of a unit in turn, and what it has in its workspace for the first of them,
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

}  // namespace EVONORM_ISA
}  // namespace evonorm
