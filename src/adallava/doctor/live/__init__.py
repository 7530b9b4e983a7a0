"""What is asked of a loaded model."""
