"""The report's charts as Plotly figures, each with the words that say what it shows."""
