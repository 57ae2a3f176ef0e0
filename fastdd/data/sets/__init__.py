"""The data sets that can be built, a family a file; fastdd.data.catalog names them."""
