"""EmbedService: maps of style, by t-SNE of Gram matrices, drawn with the pictures themselves. Never imports torch."""
