"""The demonstration: a file of traffic, played on a virtual clock against real processes, watched and checked.

traffic.toml, traffic, acts     who does what and when, and what must come of it
stage                           the merchants, made through the operator's API
storefront, phone               the shops' servers and the shoppers' phones, over HTTP
stories                         plays every act at its time
watch, pace, performance        looks at the engine, and lets the clock run as fast as that allows
happenings, view                what a person sees meanwhile
ending, verdict, summary        how everything ended, and whether it ended as written
director                        all of it together
"""
