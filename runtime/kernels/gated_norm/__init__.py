"""Normalised values times a gate (runtime.ops.gated), in Triton; derivation in README.md."""
