"""Early, late and hybrid fusion compared."""
