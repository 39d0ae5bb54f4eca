"""How the small bundled checkpoint was made."""
