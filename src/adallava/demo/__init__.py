"""A local web page: a picture, a question, and what is left of both at every budget."""
