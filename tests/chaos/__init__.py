"""Real processes under load, killed at random instants, then counted by somebody who was not there.

plan                    who is there and what they will do, decided by the seed; pure
machine, database       the processes, started again whenever they end; a durable PostgreSQL
killer                  whom, and when
merchants               organizations and shops, made through the operator's API
storefronts, bulk       carts told through the public API, and carts written in bulk
load                    feeds them all, and plays what shoppers do next
drain                   faults off, nobody killed any more: until nothing moves
evidence, count         the carrier's journal and the database, laid side by side; `count` is pure
leaks                   phone numbers in the logs
report                  what a reader checks
run                     all of it together

test_chaos              a small run       test_count   the count finds what it is there to find
test_killer             a blow at nobody does not count    test_leaks   a number in a log is found
test_found              what was found by this, each as a test that needs no chaos
"""
