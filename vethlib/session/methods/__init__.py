"""The public methods of a session, by what they do; each checks its arguments, opens namespaces, and delegates."""
