"""Getting to know a device.

What it says of itself (:mod:`.survey`), the profile made from that (:mod:`.probe`), and the environment in which
runtimes run on it (:mod:`.install`).
"""
