"""Reading the publishers' files and images, and the packed store."""
