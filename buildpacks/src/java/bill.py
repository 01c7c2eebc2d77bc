"""The libraries in what Maven or Gradle built: `group/artifact version`, one a line.

Called with the app's folder and the folder in which its builder keeps what it downloaded. An archive that was downloaded is known by
its name there; libraries that were merged into one archive are known by the records that Maven leaves in it.
"""

import os
import re
import sys
import zipfile

RECORD = re.compile(r"META-INF/maven/([^/]+)/([^/]+)/pom\.properties$")
ARCHIVES = (".jar", ".war")


def files(*folders):
    for folder in folders:
        for path, _, names in os.walk(folder):
            yield from (os.path.join(path, name) for name in names if name.endswith(ARCHIVES))


def downloaded(folder):
    """What every archive's name stands for, by where Maven and Gradle put it."""
    known = {}
    for path in files(folder):
        parts = os.path.relpath(path, folder).split(os.sep)
        if "files-2.1" in parts:
            known[parts[-1]] = ("/".join(parts[-5:-3]), parts[-3])
        elif parts[0] == "repository" and len(parts) > 4:
            known[parts[-1]] = (".".join(parts[1:-3]) + "/" + parts[-3], parts[-2])
    return known


def contents(path):
    """Names of the archives in an archive, and the libraries that were merged into it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            records = [(match, archive.read(match.string).decode()) for match in map(RECORD.match, names) if match]
    except (zipfile.BadZipFile, OSError):
        return [], []
    versions = [(match, re.search(r"^version=(.+)$", text, re.M)) for match, text in records]
    merged = [("/".join(match.groups()), version[1].strip()) for match, version in versions if version]
    return [os.path.basename(name) for name in names if name.endswith(ARCHIVES)], merged


def main(app, kept):
    known, found = downloaded(kept), set()
    for path in files(os.path.join(app, "target"), os.path.join(app, "build")):
        inside, merged = contents(path)
        found.update(merged)
        found.update(known[name] for name in [os.path.basename(path), *inside] if name in known)
    for name, version in sorted(found):
        print(name, version)


if __name__ == "__main__":
    main(*sys.argv[1:])
