"""hwbench: hardware-aware latency benchmarking and profiling."""

__version__ = "0.1.0"
