"""How far apart two bright stars stand, and how far away a galaxy of redshift 0.5 is."""

import sys

import astropy
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.cosmology import Planck18

vega = SkyCoord("18h36m56.3s", "+38d47m01s")
altair = SkyCoord("19h50m47.0s", "+08d52m06s")
distance = Planck18.luminosity_distance(0.5).to(units.Gpc)

print(f"astropy {astropy.__version__} on Python {sys.version.split()[0]} in {sys.prefix}")
print(f"Vega and Altair stand {vega.separation(altair).degree:.2f} degrees apart.")
print(f"A galaxy at redshift 0.5 is {distance:.2f} away.")
