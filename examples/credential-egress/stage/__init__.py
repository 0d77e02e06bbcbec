"""What demo.py is made of: the scene, the checks, and a look into memory."""
