"""Servers in containers: what runs inside the images, and how images are built and stacks brought up."""
