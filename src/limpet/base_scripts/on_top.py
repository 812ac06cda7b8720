"""`-m venv` for a launcher: `on_top.py LAUNCHER ARGUMENT...`, run by the image's own Python.

The environment's `python` leads to the launcher, which outside starts the image. Its packages see
the image's with --system-site-packages, also where the image's Python is itself a virtual
environment, which venv would look past.
"""

import os
import sys

del sys.path[0]  # this script's own folder, of the host

import sysconfig  # noqa: E402
import venv  # noqa: E402

NAME = "limpet-image.pth"


class OnTop(venv.EnvBuilder):
    def create(self, env_dir):
        # A copy of the launcher would not know where it belongs.
        self.symlinks = True
        on_top = self.system_site_packages and IN_VENV
        if on_top:
            self.system_site_packages = False
        super().create(env_dir)
        if on_top:
            self.lead_to_image(env_dir)

    def ensure_directories(self, env_dir):
        context = super().ensure_directories(env_dir)
        # Where the links of its bin/ lead to.
        context.executable = LAUNCHER
        return context

    def lead_to_image(self, env_dir):
        minor = "python%d.%d" % sys.version_info[:2]
        place = os.path.join(env_dir, "lib", minor, "site-packages", NAME)
        with open(place, "w") as file:
            for name in ("purelib", "platlib"):
                file.write("import site; site.addsitedir(%r)\n" % sysconfig.get_path(name))


IN_VENV = sys.prefix != sys.base_prefix
LAUNCHER = sys.argv.pop(1)
# What a plain `python -m venv` calls itself.
sys.argv[0] = venv.__file__
venv.EnvBuilder = OnTop
sys.exit(venv.main())
