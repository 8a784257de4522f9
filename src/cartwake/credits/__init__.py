"""Room `credits`: what an organization may spend, what it has spent, and never more than it has.

Every change is an entry of an append-only ledger that carries the balance after it. Credits are
reserved before the carrier is called, then confirmed or released, once. The room knows accounts, not
texts: texts spend from the account `sms`, and something else could spend from another.

The one rule of locking: whoever writes here locks the balance rows first, in sorted order
(`ledger.lock_balances`). Reservations and entries are touched under that lock alone, so two
transactions can neither deadlock nor disagree about a balance.
"""
