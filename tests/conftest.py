"""That this file is here lets every folder import the helpers beside it, `federations` and others."""
