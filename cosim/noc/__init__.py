"""Traffic on a mesh alone: what is sent, what arrived, and how much of the links' peak it was."""
