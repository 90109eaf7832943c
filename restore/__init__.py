"""How a network is applied to images: whole or in tiles, one by one or a folder."""
