"""Training: samples, augmentation, synthesis, the loop and cross-validation."""
