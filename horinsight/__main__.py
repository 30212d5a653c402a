"""`python -m horinsight`, which `torchrun -m horinsight` needs."""

from horinsight.cli.main import main

if __name__ == "__main__":
    main()
