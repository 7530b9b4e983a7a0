"""`adallava bench`: what an answer costs on the clock, beside stock transformers and beside what the machine can do."""
