"""Files as earlier versions wrote them; tests/test_stored.py loads and applies them for ever."""
