"""Other people's harnesses, driven by and driving this package. Each is imported only when it is asked for."""
