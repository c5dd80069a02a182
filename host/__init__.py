"""Host side: driver, kernels, models, command line."""
import os

# The products of the golden models are small: threads of a numeric library would only wait for
# one another, and for the simulation.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
