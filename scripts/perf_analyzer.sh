#!/bin/sh
# Runs NVIDIA's perf_analyzer with the given arguments, for a comparison with load_tests/. The wheel of
# PyPI wants glibc 2.38, Debian 12 has 2.36: so its libraries come from Debian 13, and lie beside it in
# build/perf_analyzer, where this machine's own programs do not see them.
set -eu
cd "$(dirname "$0")/.."
folder=$PWD/build/perf_analyzer
libraries=$folder/root/usr/lib/x86_64-linux-gnu

if [ ! -x "$folder/perf_analyzer/bin/perf_analyzer" ]; then
  mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/packages"
  .venv/bin/python -m pip download --quiet --no-deps --only-binary :all: \
    --platform manylinux_2_38_x86_64 --dest "$folder" perf-analyzer==2.60.0 >&2
  .venv/bin/python -m zipfile --extract "$folder"/perf_analyzer-*.whl "$folder"
  cat >"$folder/debian.sources" <<EOF
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
  cat >"$folder/apt.conf" <<EOF
Dir::Etc::sourcelist "$folder/debian.sources";
Dir::Etc::sourceparts "-";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder/cache";
EOF
  export APT_CONFIG="$folder/apt.conf"
  apt-get --quiet=2 update >&2
  (cd "$folder/packages" && apt-get --quiet=2 download libc6 libstdc++6 libgcc-s1 libssl3t64 zlib1g libzstd1 >&2)
  for package in "$folder"/packages/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
  chmod +x "$folder/perf_analyzer/bin/perf_analyzer"
fi

exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" \
  "$folder/perf_analyzer/bin/perf_analyzer" "$@"
