"""What callers hand in, brought to the types that travel: pictures and masks, numbers, names and settings, files."""
