"""The contract: what JSON comes in and goes out. Pydantic only; knows neither rows nor HTTP.

Requests are strict and forbid what they do not know; objects list their fields in the order of the recorded wire,
and hold the union of the schema's fields and the real service's extras (docs/compatibility.md).
"""
