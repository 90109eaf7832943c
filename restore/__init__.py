"""Application of a network to images: whole or in tiles, single images or folders."""
