"""Training: stages, recipes, and the objectives that `transformers.Trainer` runs."""
