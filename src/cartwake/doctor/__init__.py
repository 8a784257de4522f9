"""`cartwake doctor`: is this deployment well, and if not, what mends it?

    model        what a check finds, and what every check may use
    checks       the one table of checks: what each is called, and what it cannot do without
    settings, database, carrier, public_address, work    the checks themselves
    examine      runs them, each whatever became of the others
    report       what people and machines read

Nothing here changes anything: no row, no role, no text.
"""
