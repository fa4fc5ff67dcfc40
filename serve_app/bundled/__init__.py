"""The checkpoint that is always here: a narrow ResNet that reads handwritten digits, and how it was trained."""
