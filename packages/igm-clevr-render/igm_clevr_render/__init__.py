"""CLEVR-style scenes from a ray caster: the dataset ``clevr-render`` of igm."""
