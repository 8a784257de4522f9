"""Looking from outside: what the edges count, what the scheduler reads from the database, and who may ask.

Nothing here decides anything. Every count is taken from what a room returned, after its transaction committed.
"""
