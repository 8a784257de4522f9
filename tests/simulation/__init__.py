"""The deterministic simulator: one seed, one history, against a real PostgreSQL. See README.md.

loop       an event loop whose time is the story's
director   lets one actor run at a time, to its next gate, and says who
process    a simulated process: its tasks, its clock, its death
database   connections that pass a gate before every statement and commit
carrier    a carrier with a memory of its own: the independent witness
people     shoppers, merchants and the operator, acting through the API
witness    what should be true, reckoned from what people did and the carrier took
chaos      what goes wrong, and how often, for a seed
stage      all of it put together          run      one seed from beginning to end
shrink     the shortest story that fails   broken   variants with a defect, which must be caught
"""
