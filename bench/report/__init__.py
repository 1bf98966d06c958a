"""Results: as records, as tables, as plots.

`machine` says where a run took place, `results` keeps it in a file, `tally` computes medians and
ratios (pure), `terminal`, `summary` and `plots` show them, `comparison` puts two runs side by
side, `progress` tells how far a run is.
"""
