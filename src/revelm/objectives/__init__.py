"""What the model is shown (Batch) and how its log-probs are judged, plus credit assignment."""
