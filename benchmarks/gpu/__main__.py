"""Run the GPU benchmarks: `make bench-gpu`, or `python -m benchmarks.gpu [--quick] [-o DIR]`.

Measuring processes import this file again, so it imports nothing before it is run.
"""

if __name__ == "__main__":
    import sys

    from benchmarks.gpu.command import main

    sys.exit(main())
