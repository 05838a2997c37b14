"""The kinds of SAE, one file each.

To add one:

1. In `settings.py`, a frozen dataclass derived from `VariantSettings` (or from `PenalizedSettings`, for a sparsity
   penalty λ and resampling) with `sae = "module:Class"` and the variant's own parameters. They appear on the command
   line of train_sae by themselves. `settings.py` must not import torch, so that `--help` answers at once.
2. A file of its own with the class, derived from `SparseAutoencoder` (the last part of `sae/base.py` lists what a
   variant may say of itself). Name the parameters that have one number a feature in `feature_parameters`. Two methods
   are required: `activations` (what entries are worth) and `firing_level`. Optional: `competition`, `prefixes`,
   `auxiliary_target`, `unit_decoder`, `saelens`, …
3. One line in `registry.py`.

Training (plain, fused, under torchrun), checkpoints, saving and loading then work without further changes.
`activations` must compute entry by entry, because the fused step calls it for active entries only, and an entry at or
below `floor` must have neither value nor gradient. tests/sae/variants/test_toy.py is a whole example, and
tests/sae/fused/test_step.py compares the plain and the fused step of every registered variant.
"""
