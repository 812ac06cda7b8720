"""What is in an image, read from its file: the tree, its packages, its libraries."""
