"""The domain and the engine: runs, their events, and who follows them. Imports nothing else of ours."""
