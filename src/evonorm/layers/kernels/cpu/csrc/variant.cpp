// One variant of the kernels: this file is compiled once for each instruction set, as EVONORM_ISA.
#include "backward.h"
#include "forward.h"

namespace evonorm {
namespace EVONORM_ISA {

namespace {

struct ForwardCall {
  using Job = Forward;
  template <class R, class T, class L>
  static int call(const Job& job) { return forward_passes<R, T, L>(job); }
};

struct BackwardCall {
  using Job = Backward;
  template <class R, class T, class L>
  static int call(const Job& job) { return backward_passes<R, T, L>(job); }
};

template <class Call, class R, class T>
int by_layout(const typename Call::Job& job) {
  // With one position a channel both orders are the same memory.
  return job.channels_last || job.s == 1 ? Call::template call<R, T, ChannelsLast>(job)
                                         : Call::template call<R, T, Contiguous>(job);
}

template <class Call, class R>
int by_type(bool bf16, const typename Call::Job& job) {
  return bf16 ? by_layout<Call, R, Bf16>(job) : by_layout<Call, R, float>(job);
}

template <class Call>
int by_row(int row, bool bf16, const typename Call::Job& job) {
  switch (row) {
#define EVONORM_CASE(ID, name) \
  case ID: return by_type<Call, Row##ID>(bf16, job);
    EVONORM_ROWS(EVONORM_CASE)
#undef EVONORM_CASE
    default: return NOT_A_ROW;
  }
}

}  // namespace

int forward(int row, bool bf16, const Forward& job) { return by_row<ForwardCall>(row, bf16, job); }
int backward(int row, bool bf16, const Backward& job) { return by_row<BackwardCall>(row, bf16, job); }

}  // namespace EVONORM_ISA
}  // namespace evonorm
