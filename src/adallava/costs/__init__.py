"""What an answer costs, from what a token costs in each part of its model; see docs/concepts/costs.md."""
