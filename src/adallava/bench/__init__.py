"""`adallava bench`: what an answer costs on the clock, next to stock transformers and to what the machine can do."""
