"""Models at work: bundles, and predictors made of them."""
