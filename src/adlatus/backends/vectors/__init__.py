"""Where chunks of files are kept and found: one protocol, two Qdrant engines behind it, one meaning on both.

protocol    what an index does, and the values that go in and out
filters     filters on attributes: their syntax tree, their meaning, their compilation
languages   which language a text is in, as far as its keywords depend on it
sparse      texts as sparse BM25 vectors
points      chunks as points of an engine and back
edge        the engine in a process of this server, over a folder that one server owns
qdrant      a Qdrant server by URL
"""
