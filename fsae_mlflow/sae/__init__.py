"""Templates → sparse features and back: sparse autoencoders (SAEs), their training, and the finished SAE on disk."""
