"""Results of the benchmark suite: run, read and checked, as tables, as a page, and against another machine's."""
