"""What every room stands on: clock, configuration, database, ids, phones, crypto, errors.

Nothing in here knows a merchant, a cart or a credit.
"""
