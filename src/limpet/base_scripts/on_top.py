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
    def ensure_directories(self, env_dir):
        context = super().ensure_directories(env_dir)
        # Where the links of its bin/ lead to.
        context.executable = LAUNCHER
        return context

    def create_configuration(self, context):
        wanted = self.system_site_packages
        if wanted and IN_VENV:
            self.system_site_packages = False
        super().create_configuration(context)
        self.system_site_packages = wanted

    def setup_python(self, context):
        # A copy of the launcher would not know where it belongs.
        self.symlinks = True
        super().setup_python(context)
        if self.system_site_packages and IN_VENV:
            minor = "python%d.%d" % sys.version_info[:2]
            folder = os.path.join(context.env_dir, "lib", minor, "site-packages")
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, NAME), "w") as file:
                for place in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
                    file.write("import site; site.addsitedir(%r)\n" % place)


IN_VENV = sys.prefix != sys.base_prefix
LAUNCHER = sys.argv.pop(1)
# What a plain `python -m venv` calls itself.
sys.argv[0] = venv.__file__
venv.EnvBuilder = OnTop
sys.exit(venv.main())
