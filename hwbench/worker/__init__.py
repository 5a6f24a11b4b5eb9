"""The island: what runs on the device. Standard library, numpy, and the runtime under test.

It travels as one zipapp whose package is called ``hwbench_worker``; inside it only relative imports are used, so the
same files also import as ``hwbench.worker`` on the host, where the tests drive them with a fake clock. Syntax stays
within Python 3.8, because devices run old Pythons.
"""
