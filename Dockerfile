ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /app
# requirements-otel.txt for traces, requirements-mcp.txt for MCP servers, requirements-all.txt for both.
ARG REQUIREMENTS=requirements.txt
COPY ${REQUIREMENTS} requirements.txt
RUN python -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
 && .venv/bin/pip uninstall --yes pip
COPY server.py settings.py pyproject.toml LICENSE ./
COPY chat chat
COPY examples examples
COPY handlers handlers
COPY mcp_tools mcp_tools
COPY store store
# The root file system may be read-only: the bytecode is made here.
RUN python -m compileall -q server.py settings.py chat examples handlers mcp_tools store

FROM python:${PYTHON}-slim
# A new volume takes over the owner of the directory that it covers.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin parley \
 && install --directory --owner=parley --group=parley /data
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    PORT=8000 \
    DATABASE_URL=sqlite:////data/parley.db
USER 10001:10001
VOLUME /data
# A relative path in DATABASE_URL then leads into the volume, too.
WORKDIR /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# No proxy from the environment: the question goes to this container.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)"]
# A list, not a shell line: SIGTERM must reach Python, which then drains.
CMD ["python", "/app/server.py"]
