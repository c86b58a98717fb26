"""`python -m l4s`, which `accelerate launch -m l4s` needs."""

from l4s.cli import main

if __name__ == "__main__":
    main()
