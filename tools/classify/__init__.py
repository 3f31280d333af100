"""Fine-tune classifiers from Hugging Face directories on labelled text, and compare them."""
