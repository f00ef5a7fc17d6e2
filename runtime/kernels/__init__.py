"""Kernels for a GPU, one folder for each recurrence.  Importing this needs no Triton; launching one does."""

from runtime.kernels.shared_product.form import Gates

__all__ = ["Gates"]
