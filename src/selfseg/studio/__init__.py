"""The studio: a person looks at the clusters of a collection, names and corrects them."""
