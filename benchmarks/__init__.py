"""The figures that this project promises, each with the command that measures it: see ``__main__``.

``parts`` lists what is measured and against which bar, ``picks`` reads figures out of what commands print, ``rows`` is
what becomes of them, ``run`` measures and remembers, ``page`` writes them down. The scripts beside them measure what no
command of hwbench does; ``peers`` runs other tools on the same models.
"""
