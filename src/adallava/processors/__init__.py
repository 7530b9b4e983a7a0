"""A model's stock processor: prompts, images, and what of an image the model sees."""
