"""Lookup tables: what blocks or kernels cost on one target, and what that says about whole networks.

:mod:`.table` holds the nouns and :mod:`.file` keeps them; :mod:`.query` sums entries over populations,
:mod:`.expected` over probabilities, :mod:`.nearest` speaks for blocks that have no entry. :mod:`.merge` pools tables,
:mod:`.kernels` makes one from profiles, :mod:`.gates` doubts entries, :mod:`.diff` compares two tables.
"""
