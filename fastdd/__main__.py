from fastdd.cli import main

main()
