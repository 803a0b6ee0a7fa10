"""A daemon under load: 64 clients and 256 software devices, every outcome known beforehand.

`python -m benchmarks.load` measures; tests/daemon/test_load.py judges with the same clients.
stories.py says what a client asks and what must come, client.py asks, clients.py is a process of
clients, and crowd.py has the daemon and the processes.
"""
