"""NAS search spaces: one module each, over one set of blocks.

Everything in this folder also runs on a device, where it builds networks for eager torch: standard library, numpy and
(inside ``build``) torch, syntax of Python 3.8, and of ours only the error tree.
"""
