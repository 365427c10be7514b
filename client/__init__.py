"""Lives in the hospital: import of data sets, the site folder, training, evaluation."""
