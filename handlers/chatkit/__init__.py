"""ChatKit's backend, with the types and the ``Store`` of ``openai-chatkit``, which is an extra.

Its ``ChatKitServer`` is not used. To import it brings the Agents SDK: three seconds and 75 MB. It stores a message and
its answer in one write each, and makes an answer end with its connection; here a message and its run are stored
together, and the run goes on.
"""
