"""A local web page: an image, a question, and what is left of both at every budget."""
