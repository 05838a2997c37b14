"""The kinds of SAE, one file each.

To add one:

1. In `settings.py`, a class decorated with `@settings` and derived from `VariantSettings` (or from `PenalizedSettings`,
   for a sparsity penalty λ and resampling) with `sae = "module:Class"` and the variant's own parameters, under names
   that no other setting of train_sae has. They appear on its command line by themselves. `settings.py` must not import
   torch, so that `--help` answers at once. Where λ has another scale than that of an L1 norm, or L0 follows it slowly,
   override `first_lam` and `l0_lags`, by which target_l0 is reached.
2. A file of its own with the class, derived from `SparseAutoencoder` (the last part of `sae/base.py` lists what a
   variant may say of itself). Name the parameters that have one number a feature in `feature_parameters`; they start at
   0 (otherwise override `revive` too). For buffers of its own, see the constructor of `batchtopk.py`. Two methods are
   required: `activations` (what entries are worth) and `firing_level`. Optional: `competition`, `prefixes`,
   `auxiliary_target`, `unit_decoder` (without it, `activations` multiplies the penalty by `expand(norms)`), `saelens`.
3. The import of the settings and one line in `registry.py`. Then a row in docs/sae.md, a line in CHANGELOG.md.

Training (plain, fused, under torchrun), checkpoints, saving and loading then work without further changes.
`activations` must compute entry by entry, because the fused step calls it for active entries only, and an entry at or
below `floor` must have neither value nor gradient. tests/sae/variants/test_toy.py is a whole example, and
tests/sae/fused/test_step.py compares the plain and the fused step of every registered variant.
"""
