"""The fields of an end: how each is checked, sent, read, compared, undone and put into words."""
