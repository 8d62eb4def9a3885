"""The rows that have fused kernels: the number by which the operators know each, whatever the device."""

# The order of EVONORM_ROWS in cpu/csrc/job.h; the library's own names are held to it when it is loaded.
ROWS = (
    *("evonorm-s0", "evonorm-s1", "evonorm-s2", "evonorm-b0", "evonorm-b1", "evonorm-b2"),
    *("frn-tlu", "bn-relu", "bn-silu", "gn-relu", "gn-silu"),
)
