"""The report: sentences, tables and the page that holds them."""
