"""The benchmark: ratios of Adlatus to floor servers that are measured beside it in the same run.

`python -m bench` (or `make bench`); method and results are in docs/performance.md. From the outside in:

- `__main__`      options, the table, the JSON file
- `rows_streams`, `rows_requests`, `rows_deployment`, `rows_vectors`   what each row of the table measures
- `site`          everything that has to run for it, the turns between floor and server, what they need beforehand
- `targets`       which number of a row is judged, and by what
- `load`          the load, in processes of its own
- `processes`     starts, observes and ends processes
- `floor_relay`, `floor_crud`   the floor servers
- `client`        the lean HTTP client of the load and of the relay floor
"""
