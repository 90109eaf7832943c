"""What is known of the licences of the named data sets; a set that is missing here states none that this program knows of."""

BERKELEY = "Berkeley's photos: its authors permit non-commercial research and educational use"
SCIKIT_IMAGE = ("photos of the package scikit-image: public domain or CC0; for one of them, the motorcycle of the Middlebury stereo sets, "
                "it states no licence")
LICENCES = {"BSDS500": BERKELEY, "BSD400": BERKELEY, "CBSD68": BERKELEY,
            **dict.fromkeys(("Demo", "DemoSnow", "DemoRain", "DemoHaze", "DemoNoise"), SCIKIT_IMAGE)}


def licence(name: str) -> str:
    """Return what is known of the licence of a data set, whose name may end in `@` and a degradation."""
    return LICENCES.get(name.partition("@")[0], "no licence of this set is known to Unweather; ask its authors")
