"""Classification: from labelled series on disk to class probabilities, figures and a report."""
