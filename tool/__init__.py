"""Programs beside training: python -m tool.<name>"""
