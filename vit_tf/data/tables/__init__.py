"""Tables of image paths and labels: CSV files of spreadsheets, pandas and people."""
