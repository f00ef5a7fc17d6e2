"""Short causal convolutions and what follows (runtime.ops.short_convolution), in Triton; derivation in README.md."""
