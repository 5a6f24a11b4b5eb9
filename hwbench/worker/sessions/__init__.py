"""The session modules, one a runtime: what runs a model on the device. :mod:`hwbench.runtimes` says what they offer."""
