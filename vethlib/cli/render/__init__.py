"""Values as text for people. Functions return text or lines; nothing here does I/O."""
