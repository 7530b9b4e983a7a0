"""A model's stock processor: prompts, pictures, and what of a picture the model sees."""
