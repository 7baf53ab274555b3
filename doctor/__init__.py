"""`python server.py doctor URL`: what a chain of proxies does to the streams that go through it.

A program of its own that talks to a service over HTTP, wherever it runs, and shares nothing with it but the route
`/doctor/stream`. What is measured (`probe`) and what that means (`judgement`, which is pure) are apart.
"""
