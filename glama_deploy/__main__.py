"""`python -m glama_deploy`: the command `glama`."""

from glama_deploy.cli.start import main

if __name__ == "__main__":
    main()
