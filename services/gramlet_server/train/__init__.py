"""Transfer-learning heads: trained on a frozen network's features, stored by name and version, served at once."""
