"""Jobs: *when* something is looked at. *Whether* anything is done is for the rooms to decide, under lock.

A trigger that fires too often, twice or never loses nothing and sends nothing twice: claims are
conditional, and whoever waits looks again by itself.
"""
