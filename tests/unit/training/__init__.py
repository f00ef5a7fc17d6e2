"""The training half of the runtime, and the generator of train.py: data in, a run directory out."""
