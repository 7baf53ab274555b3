"""The AI SDK's chat, as ``useChat`` and its like speak it."""
