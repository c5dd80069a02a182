"""Single changes of the RTL that the tests must find; ``make mutants`` tries each."""
