"""How far apart two bright stars stand, and how fast the universe grew when it was younger."""

import sys

import astropy
from astropy.coordinates import SkyCoord
from astropy.cosmology import Planck18

vega = SkyCoord("18h36m56.3s", "+38d47m01s")
altair = SkyCoord("19h50m47.0s", "+08d52m06s")
rate = Planck18.H(0.5)

print(f"astropy {astropy.__version__} on Python {sys.version.split()[0]} in {sys.prefix}")
print(f"Vega and Altair stand {vega.separation(altair).degree:.2f} degrees apart.")
print(f"At redshift 0.5 the universe expanded at {rate:.1f}.")
