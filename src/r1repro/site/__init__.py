"""The report as pages to read: tables whose numbers have addresses, outputs, executed notebooks; static, no script."""
