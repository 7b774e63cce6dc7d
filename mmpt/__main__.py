"""`python -m mmpt`: the command line without an installed script."""

from mmpt.commands.main import main

if __name__ == "__main__":
    main()
