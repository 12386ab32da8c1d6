"""The plan that undoes a plan, and what cannot be undone. Pure."""
