"""What an answer costs, in closed form, from shapes alone. No torch here; see docs/costs.md."""
