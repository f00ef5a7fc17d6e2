"""Short causal convolutions with what follows of them (runtime.ops.convolution), in Triton; derivation in README.md."""
