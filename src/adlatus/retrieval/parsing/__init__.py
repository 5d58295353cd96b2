"""What runs in the confined child: one module per kind of file, from bytes to text. Trusts nothing that it reads.

A kind's module has `extract(source, sink)`. It must be able to finish without opening a file or importing a module,
because after `confine` neither is possible.
"""
