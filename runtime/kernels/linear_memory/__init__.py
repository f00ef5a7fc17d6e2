"""Matrix memories whose write is affine in the state (runtime.ops.memories), in Triton; derivation in README.md."""
