# SPDX-License-Identifier: Apache-2.0
"""What stands behind frostfork.zygote: the processes and what they say to each other.

    owner (link.py, starting.py) ──▶ root (root.py) ──▶ zygote (nursery.py) ──▶ worker (life.py)

They talk in messages (channel.py) over AF_UNIX sockets, one for root and one for each zygote, and all hold on to a
lifeline (lifeline.py), by which they end when the owner does.
"""
