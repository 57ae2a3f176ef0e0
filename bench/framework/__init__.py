"""How a case is measured, checked, written and drawn."""
