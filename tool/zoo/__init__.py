"""The zoo: networks that this program trained, their cards, and the table that tests them all."""
