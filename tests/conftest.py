"""Its place here lets every folder import the helpers beside it, such as `federations`."""
