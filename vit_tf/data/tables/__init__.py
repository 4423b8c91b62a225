"""Tables of image paths and labels: CSV files as spreadsheets, pandas and people write them."""
