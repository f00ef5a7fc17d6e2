"""Self-generated matrix memories with one transition (runtime.ops.shared), in Triton; derivation in README.md."""
