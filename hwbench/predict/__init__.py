"""From measured networks to a predictor, and from any network to a latency with its interval.

``examples`` reads measured networks from the store, ``graph`` asks a target's runtime which kernels a network runs,
``features`` and ``roofline`` say what a kernel asks of a device, ``fit`` learns the rest, ``predictor`` is the noun and
``file`` its file; ``train`` decides what to measure: ``networks`` of the catalog and beyond, single kernels that are
``drawn`` (``draws`` says how), and those that ``doubt`` asks for, which ``rebuild`` and ``neighbours`` make.
"""
