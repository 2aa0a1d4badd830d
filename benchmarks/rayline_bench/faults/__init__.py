"""Faults under load: the requests that clients lose when a part of a running service is killed, replaced or taken away.

`rows` has the faults, `strikes` the ways to break a part, `scenes` the load and the count, `services` the services.
"""
