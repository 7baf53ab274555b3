ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /app
# For strip: wheels come with symbols, uvloop's alone are 10 MB.
RUN apt-get -qq update && apt-get -qq install --yes --no-install-recommends binutils >/dev/null
# requirements-otel.txt for traces, requirements-mcp.txt for MCP servers, requirements-chatkit.txt for ChatKit's widget,
# requirements-postgres.txt for PostgreSQL, requirements-jwt.txt for AUTH=jwt, requirements-vectors.txt for embeddings,
# requirements-all.txt for all of them.
ARG REQUIREMENTS=requirements.txt
COPY ${REQUIREMENTS} requirements.txt
# Left out: what only builds and debuggers need, and of Swagger UI all that no page asks for. It was half of the layer.
RUN python -m venv .venv \
 && .venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
 && .venv/bin/pip uninstall --yes pip setuptools \
 && find .venv -name '*.so' -exec strip --strip-unneeded {} + \
 && find .venv -regex '.*\.\(c\|h\|pyi\|pyx\|pxd\|pxi\|map\)' -delete \
 && find .venv -path '*/swagger_ui/static/*' -type f ! -name swagger-ui.css ! -name swagger-ui-bundle.js -delete
COPY server.py composition.py settings.py pyproject.toml LICENSE ./
COPY chat chat
COPY doctor doctor
COPY examples examples
COPY handlers handlers
COPY knowledge knowledge
COPY mcp_tools mcp_tools
COPY store store
# The root file system may be read-only: the bytecode is made here.
RUN python -m compileall -q server.py composition.py settings.py chat doctor examples handlers knowledge mcp_tools store

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
