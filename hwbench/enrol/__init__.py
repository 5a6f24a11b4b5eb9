"""Getting to know a device.

What it says of itself (:mod:`.survey`), the profile made from that (:mod:`.probe`), which wheels a runtime needs there
(:mod:`.recipes`), and the environment in which runtimes run on it (:mod:`.install`).
"""
