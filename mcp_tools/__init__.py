"""MCP servers whose tools the model may call. Knows the package `mcp`, an extra: only who has servers imports it."""
