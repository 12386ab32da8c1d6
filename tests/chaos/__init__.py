"""Those who do an agent harm, each a process of its own: a tenant, a writer of the store, a local user of the host.

``python -m tests.chaos.tenant …``: each stops by itself after the seconds it is given.
"""
