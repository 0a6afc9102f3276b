"""The two commands: ``deepmrseg-bids`` (the BIDS-App) and ``deepmrseg`` (the library)."""

import os

# How OpenBLAS deals a product to threads changes its last digits, and with them a voxel here and
# there: with one thread the same input gives the same bytes on any number of cores. Read when
# numpy is imported, by this process and by its workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
