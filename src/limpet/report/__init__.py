"""Values to text, JSON and progress lines."""
