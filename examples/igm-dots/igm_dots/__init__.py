"""An example plugin of igm: stars on a night sky."""
