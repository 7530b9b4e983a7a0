"""What is looked for in answers, whatever file they came from: one module a kind of failure."""
