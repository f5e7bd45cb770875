# `python -m circusplug`, the same as the command `circusplug`.

from ._cli.main import run

if __name__ == "__main__":
    run()
