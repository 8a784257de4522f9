"""The texts themselves: what one says and in which language, what it costs to carry, whether and when it may go.

`segments`, `templates` and `keywords` are pure: no database, no clock, no network. They are the words
of a text on its way out, their size, and the meaning of an answer on its way in.
"""
