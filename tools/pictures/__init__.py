"""Pictures of the documents, and the script that draws the architecture."""
