"""From a prompt with images to an answer: plan, encode, select, compact, generate."""
