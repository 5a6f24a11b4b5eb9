"""Search: which networks of a space are worth having, at what cost, under what limits.

The accuracy comes from the user (:mod:`.accuracy`), the costs from a lookup table (:mod:`.cost`). What nothing beats is
the front (:mod:`.front`), a file; :mod:`.verify` measures some of it.
"""
