#!/usr/bin/env bash
# Builds the images: all of them, or the roles that are named.
#     images/build.sh                    # exsearch/tools:0.1.0 and the others
#     PREFIX=example/exsearch images/build.sh retriever rollout
# Variables: ENGINE (podman or docker; default: whichever is there), PREFIX, VERSION, and
# BUILD_ARGS, for example "--build-arg ENGINE=rollout-cpu" for nodes without a GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

engine="${ENGINE:-$(command -v podman || command -v docker || true)}"
if [ -z "$engine" ]; then
    echo "no container engine here: install podman or docker, or set ENGINE" >&2
    exit 1
fi
prefix="${PREFIX:-exsearch}"
version="${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' exsearch/__init__.py)}"
revision="$(git rev-parse HEAD 2>/dev/null || echo unknown)"
read -r -a more <<<"${BUILD_ARGS:-}"
(($#)) || set -- tools retriever rollout trainer agent

for role in "$@"; do
    if [ ! -f "images/$role/Containerfile" ]; then
        echo "there is no image $role: images/$role/Containerfile is missing" >&2
        exit 2
    fi
    echo "building $prefix/$role:$version"
    # Docker takes cache mounts only through BuildKit; podman does not mind the variable.
    DOCKER_BUILDKIT=1 "$engine" build \
        --file "images/$role/Containerfile" \
        --tag "$prefix/$role:$version" \
        --build-arg "VERSION=$version" \
        --build-arg "REVISION=$revision" \
        "${more[@]}" .
done
