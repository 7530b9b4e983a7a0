"""From recorded scores to what a run lets one say: means, comparisons, fronts, areas. No torch, no page."""
